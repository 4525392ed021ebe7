"""From a file to what a viewer shows: the pixels as they were stored, and the window that they are opened with.

Nothing of the gate's rules applies: a person may look at a lateral view, or at a child's film. The first look is that
of `worker.decode.film`, but for a polarity that the header got wrong: whoever looks sees what the header says.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from schemas.errors import NotAnalysable
from schemas.not_analysed import NotAnalysed
from schemas.original import FirstWindow, Function, Original, OriginalPixels
from worker.decode.display import Lut, Meaning, Rendering, Window, full_range, looked_up, meaning, rendering, to_display
from worker.decode.gate import check_pixels
from worker.decode.header import describe, numbers, open_source
from worker.decode.pixels import PixelFormat, StoredPixels, stored_pixels

_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_STEPS: Final = 256  # of a VOI LUT's curve; a screen has as many greys
_LARGEST_SPACING: Final = 10.0  # mm; beyond is no radiograph's
_SIDE: Final = 512  # pixels of the sample by which a window is tried


def read_original(path: Path) -> Original:
    """The film as it was stored.

    Raises
    ------
    Undecodable
        Not DICOM, truncated, no decoder. Permanent. A missing file or no permission stays an `OSError`.
    NotAnalysable
        NO_PIXELS, MULTI_FRAME or COLOUR: nothing that a film viewer shows.
    """
    with path.open("rb") as file:
        source = open_source(file)
        header, _ = describe(source)
        for holds, code in (
            (not source.has_pixels, NotAnalysed.NO_PIXELS),
            (header.number_of_frames > 1, NotAnalysed.MULTI_FRAME),
            (header.photometric_interpretation == "PALETTE COLOR", NotAnalysed.COLOUR),
        ):
            if holds:
                raise NotAnalysable(code)
        stored, form = stored_pixels(source)
        how = _of_use(stored, form, rendering(source))
        what = meaning(form, how)
        spacing, at_detector = _spacing(source.dataset)
        return Original(
            values=looked_up(_table(form, how, what), stored),
            slope=1.0 if how.modality_lut else how.slope,
            intercept=0.0 if how.modality_lut else how.intercept,
            window=_window(how, full_range(stored, form, what)),
            inverse=how.inverse,
            # Behind a Modality LUT nobody knows any more which values were padding.
            padding=None if how.modality_lut else how.padding,
            spacing=spacing,
            spacing_at_detector=at_detector,
            aspect=_aspect(source.dataset, spacing),
            view=header.view_position,
        )


def _of_use(stored: StoredPixels, form: PixelFormat, how: Rendering) -> Rendering:
    """Without its window, where that shows nothing and the film's own range something."""
    step = max(1, min(stored.shape) // _SIDE)
    sample = stored[::step, ::step]
    try:
        check_pixels(to_display(sample, form, how))
    except NotAnalysable:
        without = replace(how, voi=None)
        try:
            check_pixels(to_display(sample, form, without))
        except NotAnalysable:
            return how
        return without
    return how


def _table(form: PixelFormat, how: Rendering, what: Meaning) -> OriginalPixels:
    """Pixel cell -> value that is sent."""
    values: NDArray[np.float64] = np.clip(np.floor(what.x + 0.5), 0, 0xFFFF) if how.modality_lut else what.values
    signed = form.signed and not how.modality_lut
    dtype = np.int16 if signed else np.uint8 if values.max() <= 0xFF else np.uint16
    return cast("OriginalPixels", values.astype(dtype)[what.pattern_of])


def _window(how: Rendering, range_of_film: Window) -> FirstWindow:
    voi = how.voi
    if isinstance(voi, Lut):
        steps = np.linspace(voi.first, voi.first + max(1, len(voi.data) - 1), _STEPS)
        curve = np.clip(np.interp(steps, voi.first + np.arange(len(voi.data)), voi.data) / voi.full, 0, 1)
        width = float(steps[-1] - steps[0])
        return FirstWindow(
            center=float(steps[0]) + width / 2,
            width=width,
            function="LINEAR_EXACT",
            curve=tuple(curve.round(4).tolist()),
        )
    window = voi or range_of_film
    function = window.function if window.function in _FUNCTIONS else "LINEAR_EXACT"
    return FirstWindow(
        center=window.center,
        width=window.width if voi else max(window.width, abs(how.slope)),  # of a blank film: one step
        function=cast("Function", function),
        from_header=voi is not None,
    )


def _spacing(ds: Dataset) -> tuple[tuple[float, float] | None, bool]:
    """Pixel Spacing where the image is calibrated (PS3.3 10.7), else the detector's."""
    for keyword, at_detector in (("PixelSpacing", False), ("ImagerPixelSpacing", True)):
        found = numbers(ds, keyword)
        if len(found) == 2 and all(0 < mm <= _LARGEST_SPACING for mm in found):
            same = found == numbers(ds, "ImagerPixelSpacing")  # then it was not corrected for magnification
            return (found[0], found[1]), at_detector or same
    return None, False


def _aspect(ds: Dataset, spacing: tuple[float, float] | None) -> float:
    """By the spacing, else by Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7: vertical, then horizontal)."""
    pair = spacing or numbers(ds, "PixelAspectRatio")
    if len(pair) != 2 or not all(part > 0 for part in pair):
        return 1.0
    aspect = pair[0] / pair[1]
    return aspect if 0.1 <= aspect <= 10 and math.isfinite(aspect) else 1.0
