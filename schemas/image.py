"""A film between decoder and tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.identity import StudyContext

GrayImage: TypeAlias = NDArray[np.uint8]  # (Rows, Columns); 0 = black, 255 = white
Tensor: TypeAlias = NDArray[np.uint8]  # (size, size, 3), the recipe's output


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmHeader:
    """What the gate and the watchers look at, in DICOM's keywords; empty or None when absent."""

    sop_class: str = ""
    modality: str = ""
    body_part_examined: str = ""
    anatomic_region: str = ""
    view_position: str = ""
    patient_orientation: tuple[str, ...] = ()
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    acquisition_description: str = ""  # Acquisition Device Processing Description, Performed Protocol Code meanings
    patient_age_years: float | None = None
    patient_species: str = ""
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int = 1
    samples_per_pixel: int = 1
    photometric_interpretation: str = ""
    bits_stored: int | None = None
    has_pixels: bool = False
    manufacturer: str = ""
    model_name: str = ""
    burned_in_annotation: str = ""
    image_type: tuple[str, ...] = ()
    presentation_intent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A film that passed the gate, ready for the tensor recipe."""

    header: FilmHeader
    context: StudyContext
    pixels: GrayImage
    remarks: tuple[str, ...] = field(default=())  # e.g. "polarity-corrected"
