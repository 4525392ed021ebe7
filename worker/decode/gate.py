"""Is it a frontal chest film of an adult? First from the header alone, then from the pixels.

When in doubt a film is let through: what is refused is not read at all, so a refusal needs a reason in the header.
No remark carries free text of the film.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.image import FilmHeader, GrayImage
from schemas.not_analysed import NotAnalysed

_RADIOGRAPHS: Final[dict[str, str]] = {
    ComputedRadiographyImageStorage: "CR",
    DigitalXRayImageStorageForPresentation: "DX",
    DigitalXRayImageStorageForProcessing: "DX",
}
_CAPTURES: Final[set[str]] = {  # may hold a radiograph: Modality says
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
}
_OTHER_RADIOGRAPHY: Final = {"MG", "IO", "PX", "XA", "RF", "BMD"}  # X-rays, but never a chest film
_HUMAN: Final = {"homo", "sapiens", "human"}
_DECUBITUS: Final = {"decubitus", "decub", "lld", "rld"}  # "left lateral decubitus" is a frontal projection

MINIMUM_RANGE: Final = 16  # grey levels between the 1st and the 99th percentile
MINIMUM_STRUCTURE: Final = 0.2  # variance between blocks over variance within: noise has none, NIH's films 3 and more
MAXIMUM_EXTREMES: Final = 0.95  # share of pixels that are black or white
MAXIMUM_WHITE: Final = 0.7
SURELY_INVERTED: Final = -0.15  # correlation with `_FRONTAL`; NIH's films have 0.3 to 0.8
_BLOCKS: Final = 16


def check_header(header: FilmHeader, rules: GateRules) -> None:
    """Raise `NotAnalysable` with the first reason that holds."""
    exposure = _words(header.series_description, header.protocol_name, header.acquisition_description)
    study = _words(header.study_description)
    modality = header.modality.upper() or _RADIOGRAPHS.get(header.sop_class, "")
    named = f"Modality {modality}" if re.fullmatch(r"[A-Z0-9_]{1,16}", modality) else "no Modality"
    age, rows, columns = header.patient_age_years, header.rows or 0, header.columns or 0
    view = _view(header, rules, exposure, study)
    reasons = (
        (modality in _OTHER_RADIOGRAPHY.difference(rules.modalities), NotAnalysed.NOT_CHEST, named),
        (modality not in rules.modalities, NotAnalysed.NOT_A_RADIOGRAPH, named),
        (header.sop_class not in {*_RADIOGRAPHS, *_CAPTURES, ""}, NotAnalysed.NOT_A_RADIOGRAPH, "SOP Class UID"),
        ("LOCALIZER" in header.image_type, NotAnalysed.NOT_A_RADIOGRAPH, "Image Type LOCALIZER"),
        (_is_animal(header, rules, exposure | study), NotAnalysed.NOT_HUMAN, "species or descriptions"),
        (not _shows_chest(header, rules, exposure, study), NotAnalysed.NOT_CHEST, "body part or descriptions"),
        (view is not None, view or NotAnalysed.LATERAL, "view, orientation or descriptions"),
        (age is not None and age < rules.minimum_age_years, NotAnalysed.CHILD, "age"),
        (age is None and bool((exposure | study) & _lower(rules.child_words)), NotAnalysed.CHILD, "descriptions"),
        (not header.has_pixels, NotAnalysed.NO_PIXELS, ""),
        (header.number_of_frames > 1, NotAnalysed.MULTI_FRAME, f"{header.number_of_frames} frames"),
        (header.photometric_interpretation == "PALETTE COLOR", NotAnalysed.COLOUR, "PALETTE COLOR"),
        (min(rows, columns) <= 0, NotAnalysed.UNREADABLE, "no Rows or Columns"),
        (min(rows, columns) < rules.minimum_size, NotAnalysed.TOO_SMALL, f"{rows} x {columns}"),
    )
    for holds, code, detail in reasons:
        if holds:
            raise NotAnalysable(code, detail)


def _is_animal(header: FilmHeader, rules: GateRules, descriptions: set[str]) -> bool:
    species = _words(header.patient_species)
    return bool(species and not species & _HUMAN) or bool(descriptions & _lower(rules.animal_words))


def _words(*texts: str) -> set[str]:
    """Whole words in lower case; "P.A." is one word."""
    return set(re.findall(r"[^\W\d_]+", " ".join(texts).replace(".", "").lower()))


def _lower(words: Iterable[str]) -> set[str]:
    return {w.lower() for w in words}


def _shows_chest(header: FilmHeader, rules: GateRules, exposure: set[str], study: set[str]) -> bool:
    """The body part, or what was written for this very exposure; the study's words only where both are silent."""
    chest, other = _lower(rules.chest_words), _lower(rules.not_chest_words)
    part = _words(header.body_part_examined, header.anatomic_region)
    if (part | exposure) & chest:
        return True
    if (part | exposure) & other:
        return False
    if study & chest:
        return True
    return rules.assume_chest and not study & other


def _view(header: FilmHeader, rules: GateRules, exposure: set[str], study: set[str]) -> NotAnalysed | None:
    """None: frontal, or nothing says otherwise. The most particular statement that is unambiguous counts."""
    frontal, lateral, oblique = (_lower(w) for w in (rules.frontal_views, rules.lateral_words, rules.oblique_words))

    def verdict(words: set[str]) -> str:
        if words & oblique:
            return "oblique"
        if words & _DECUBITUS:
            return "frontal"
        return {(True, False): "frontal", (False, True): "lateral"}.get(
            (bool(words & frontal), bool(words & lateral)), ""
        )

    # PS3.3 C.7.6.1.1.1: the direction of the rows; along A-P it is the side that is seen
    turned = {"A": "lateral", "P": "lateral", "L": "frontal", "R": "frontal"}.get(
        "".join(header.patient_orientation[:1]), ""
    )
    statements = (verdict(_words(header.view_position)), verdict(exposure), turned, verdict(study))
    said = next(filter(None, statements), "frontal")
    return {"oblique": NotAnalysed.OBLIQUE, "lateral": NotAnalysed.LATERAL}.get(said)


def check_pixels(shown: GrayImage) -> None:
    """Raise `NotAnalysable`: BLANK (nothing to be seen) or SATURATED."""
    sample = _sample(shown)
    share = np.cumsum(np.bincount(sample.reshape(-1), minlength=256)) / sample.size
    low, high = np.searchsorted(share, (0.01, 0.99))
    black, white = share[2], 1 - share[252]
    two_tone = black + white > MAXIMUM_EXTREMES and min(black, white) > 1 - MAXIMUM_EXTREMES
    if white > MAXIMUM_WHITE or two_tone:
        raise NotAnalysable(NotAnalysed.SATURATED, f"{white:.0%} white, {black:.0%} black")
    if high - low < MINIMUM_RANGE:
        raise NotAnalysable(NotAnalysed.BLANK, f"{high - low} grey levels")
    means = _block_means(sample)
    if means.var() < MINIMUM_STRUCTURE * (sample.var() - means.var()):
        raise NotAnalysable(NotAnalysed.BLANK, "noise")


def is_inverted(shown: GrayImage) -> bool:
    """Whether a frontal chest film is surely shown with its polarity reversed.

    Correlates the film, without collimated borders and reduced to 16 x 16, with the coarse look of any frontal
    chest. Measured on NIH ChestX-ray14 films, see the test of that name.
    """
    return polarity(shown) < SURELY_INVERTED


def polarity(shown: GrayImage) -> float:
    """Correlation with `_FRONTAL` in [-1, 1]; exactly odd under inversion."""
    means = _block_means(_without_borders(_sample(shown)))
    spread = means.std()
    return float(np.mean((means - means.mean()) / spread * _FRONTAL)) if spread > 0 else 0.0


def _sample(shown: GrayImage) -> GrayImage:
    """Every n-th pixel, about 256 on the shorter side."""
    step = max(1, min(shown.shape) // 256)
    return np.ascontiguousarray(shown[::step, ::step])


def _without_borders(sample: GrayImage) -> GrayImage:
    """Cut the outer rows and columns that are nearly all black or white, whatever the polarity."""
    extreme = (sample <= 8) | (sample >= 247)
    rows, columns = (np.flatnonzero(extreme.mean(axis=a) < 0.9) for a in (1, 0))
    if len(rows) < 2 * _BLOCKS or len(columns) < 2 * _BLOCKS:
        return sample
    return sample[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _block_means(sample: GrayImage) -> NDArray[np.float64]:
    edges = [np.linspace(0, n, _BLOCKS + 1).astype(np.intp) for n in sample.shape]
    sums = np.add.reduceat(np.add.reduceat(sample, edges[0][:-1], axis=0, dtype=np.int64), edges[1][:-1], axis=1)
    areas: NDArray[np.float64] = sums / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return areas


def _frontal() -> NDArray[np.float64]:
    """Spine and abdomen bright, lungs and the four corners dark; zero mean, unit variance."""
    y, x = (np.mgrid[:_BLOCKS, :_BLOCKS] + 0.5) / (_BLOCKS / 2) - 1

    def blob(cx: float, cy: float, width: float, height: float) -> NDArray[np.float64]:
        bell: NDArray[np.float64] = np.exp(-(((np.abs(x) - cx) / width) ** 2) - ((y - cy) / height) ** 2)
        return bell

    look = blob(0, 0, 0.2, 1.2) + 1.2 * blob(0, 1, 0.55, 0.4)
    look -= blob(0.4, -0.15, 0.25, 0.5) + blob(1, -1, 0.4, 0.4) + blob(1, 1, 0.25, 0.6)
    standard: NDArray[np.float64] = (look - look.mean()) / look.std()
    return standard


_FRONTAL: Final = _frontal()
