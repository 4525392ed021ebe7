"""A film as a viewer needs it: its pixels as they were stored, and how to show them at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

OriginalPixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]

Function: TypeAlias = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]  # PS3.3 C.11.2.1.2 and C.11.2.1.3


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstWindow:
    """The window that a film is opened with, in units of the Modality LUT's output."""

    center: float
    width: float
    function: Function = "LINEAR"
    curve: tuple[float, ...] = ()  # of a VOI LUT: grey in [0, 1] at equal steps over the window, in place of `function`
    from_header: bool = True  # False: found from the film's own values


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """One film.

    `values` (Rows, Columns), native byte order: what the Modality LUT gives is `values * slope + intercept`, exactly.
    """

    values: OriginalPixels
    slope: float
    intercept: float
    window: FirstWindow
    inverse: bool  # low values are bright
    padding: tuple[int, int] | None  # of `values`, both ends included: shown black whatever the window
    spacing: tuple[float, float] | None  # mm between rows and between columns
    spacing_at_detector: bool  # the spacing is the detector's: the patient is smaller by the magnification
    aspect: float  # height of a pixel over its width
    view: str  # View Position, or what is said in its place
