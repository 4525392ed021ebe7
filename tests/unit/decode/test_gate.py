"""The gate, from the header and from the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
)

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.image import FilmHeader
from schemas.not_analysed import NotAnalysed
from worker.decode.gate import check_header, check_pixels, is_inverted, polarity
from worker.simulate import phantom

RULES = GateRules()
FRONTAL = FilmHeader(
    sop_class=DigitalXRayImageStorageForPresentation,
    modality="DX",
    body_part_examined="CHEST",
    view_position="PA",
    patient_age_years=54.0,
    rows=2500,
    columns=2048,
    photometric_interpretation="MONOCHROME2",
    has_pixels=True,
)


def reason(rules: GateRules = RULES, **fields: object) -> NotAnalysed | None:
    try:
        check_header(replace(FRONTAL, **fields), rules)
    except NotAnalysable as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"modality": "CR", "view_position": "AP"},
        {"modality": "", "sop_class": DigitalXRayImageStorageForPresentation},
        {"sop_class": SecondaryCaptureImageStorage, "modality": "CR"},
        {"body_part_examined": "", "view_position": ""},
        {"body_part_examined": "THORAX_1VIEW"},
        {"body_part_examined": "CHEST_ABDOMEN"},
        {"body_part_examined": "TÓRAX"},
        {"body_part_examined": "UNKNOWN", "study_description": "XR CHEST 2 VIEWS PA AND LATERAL"},
        {"body_part_examined": "ABDOMEN", "series_description": "Chest PA"},  # the console's default body part
        {"body_part_examined": "", "study_description": "CHEST AND ABDOMEN"},
        {"body_part_examined": "", "anatomic_region": "Chest"},
        {"view_position": "", "series_description": "CHEST P.A."},
        {"view_position": "", "series_description": "PA/LAT"},
        {"view_position": "", "patient_orientation": ("L", "F")},
        {"view_position": "PA", "patient_orientation": ("A", "F")},
        {"view_position": "postero-anterior"},
        {"view_position": "LLD"},
        {"view_position": "", "series_description": "LEFT LATERAL DECUBITUS"},
        {"view_position": "", "series_description": "UNILATERAL RIBS"},
        {"patient_age_years": None},
        {"patient_age_years": 18.0},
        {"patient_age_years": 54.0, "study_description": "CHILD PROTECTION UNIT CHEST"},
        {"patient_species": "Homo sapiens"},
        {"rows": 200, "columns": 200},
        {"image_type": ("ORIGINAL", "PRIMARY", "")},
    ],
)
def test_frontal_chest_films_of_adults_pass(fields: dict[str, object]) -> None:
    assert reason(**fields) is None


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (NotAnalysed.NOT_A_RADIOGRAPH, {"modality": "CT", "sop_class": CTImageStorage}),
        (NotAnalysed.NOT_A_RADIOGRAPH, {"modality": "OT", "sop_class": SecondaryCaptureImageStorage}),
        (NotAnalysed.NOT_A_RADIOGRAPH, {"modality": "DX", "sop_class": CTImageStorage}),
        (NotAnalysed.NOT_A_RADIOGRAPH, {"modality": "", "sop_class": SecondaryCaptureImageStorage}),
        (NotAnalysed.NOT_A_RADIOGRAPH, {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
        (NotAnalysed.NOT_CHEST, {"modality": "XA", "sop_class": XRayAngiographicImageStorage}),
        (NotAnalysed.NOT_CHEST, {"modality": "MG"}),
        (NotAnalysed.NOT_CHEST, {"body_part_examined": "HIP"}),
        (NotAnalysed.NOT_CHEST, {"body_part_examined": "T-SPINE"}),
        (NotAnalysed.NOT_CHEST, {"body_part_examined": "", "series_description": "KNEE AP"}),
        (NotAnalysed.NOT_CHEST, {"body_part_examined": "SHOULDER", "study_description": "CHEST AND SHOULDER"}),
        (NotAnalysed.NOT_CHEST, {"body_part_examined": "", "study_description": "Foot"}),
        (NotAnalysed.NOT_HUMAN, {"patient_species": "Canis lupus familiaris"}),
        (NotAnalysed.NOT_HUMAN, {"acquisition_description": "CANINE LATERAL THORAX 0-15cm"}),
        (NotAnalysed.LATERAL, {"view_position": "LL"}),
        (NotAnalysed.LATERAL, {"view_position": "left lateral"}),
        (NotAnalysed.LATERAL, {"view_position": "", "series_description": "Chest LAT"}),
        (NotAnalysed.LATERAL, {"view_position": "", "protocol_name": "THORAX SEITLICH"}),
        (NotAnalysed.LATERAL, {"view_position": "", "patient_orientation": ("P", "F")}),
        (NotAnalysed.LATERAL, {"view_position": "", "study_description": "CHEST LATERAL"}),
        (NotAnalysed.OBLIQUE, {"view_position": "RLO"}),
        (NotAnalysed.OBLIQUE, {"view_position": "antero-posterior oblique"}),
        (NotAnalysed.CHILD, {"patient_age_years": 17.9}),
        (NotAnalysed.CHILD, {"patient_age_years": 0.0}),
        (NotAnalysed.CHILD, {"patient_age_years": None, "study_description": "BABYGRAM CHEST"}),
        (NotAnalysed.CHILD, {"patient_age_years": None, "study_description": "Children's chest"}),
        (NotAnalysed.CHILD, {"patient_age_years": None, "study_description": "PEDIATRICS CHEST AP"}),
        (NotAnalysed.NO_PIXELS, {"has_pixels": False}),
        (NotAnalysed.MULTI_FRAME, {"number_of_frames": 2}),
        (NotAnalysed.COLOUR, {"photometric_interpretation": "PALETTE COLOR"}),
        (NotAnalysed.UNREADABLE, {"rows": None}),
        (NotAnalysed.UNREADABLE, {"columns": 0}),
        (NotAnalysed.TOO_SMALL, {"rows": 199}),
    ],
)
def test_what_does_not_pass(code: NotAnalysed, fields: dict[str, object]) -> None:
    assert reason(**fields) is code


def test_rules_are_the_administrators() -> None:
    assert reason(GateRules(minimum_age_years=16), patient_age_years=17.0) is None
    assert reason(GateRules(assume_chest=False), body_part_examined="") is NotAnalysed.NOT_CHEST
    assert reason(GateRules(modalities=("DX",)), modality="CR") is NotAnalysed.NOT_A_RADIOGRAPH
    assert reason(GateRules(modalities=("DX", "RF")), modality="RF") is None
    assert reason(GateRules(chest_words=("bröst",)), body_part_examined="", series_description="Bröst PA") is None
    assert reason(GateRules(minimum_size=3000)) is NotAnalysed.TOO_SMALL


def test_no_remark_carries_free_text() -> None:
    for fields in ({"study_description": "SECRET canine"}, {"series_description": "SECRET KNEE", "modality": "DX"}):
        with pytest.raises(NotAnalysable) as error:
            check_header(replace(FRONTAL, body_part_examined="", **fields), RULES)
        assert "SECRET" not in str(error.value)


def code_of(shown: np.ndarray) -> NotAnalysed | None:
    try:
        check_pixels(shown)
    except NotAnalysable as error:
        return error.code
    return None


def test_nothing_to_be_seen() -> None:
    rng = np.random.default_rng(0)
    assert code_of(np.zeros((500, 400), np.uint8)) is NotAnalysed.BLANK
    assert code_of(np.full((500, 400), 130, np.uint8)) is NotAnalysed.BLANK
    assert code_of(rng.integers(0, 256, (500, 400)).astype(np.uint8)) is NotAnalysed.BLANK
    assert code_of(rng.normal(128, 30, (2500, 2048)).clip(0, 255).astype(np.uint8)) is NotAnalysed.BLANK


def test_saturated() -> None:
    assert code_of(np.full((500, 400), 255, np.uint8)) is NotAnalysed.SATURATED
    film = phantom.draw(1, rows=500, columns=400)
    assert code_of(np.where(film > 100, 255, 0).astype(np.uint8)) is NotAnalysed.SATURATED


def test_a_collimated_film_is_not_blank() -> None:
    film = np.zeros((1000, 1000), np.uint8)
    film[300:700, 300:650] = phantom.draw(1, rows=400, columns=350)
    assert code_of(film) is None
    assert not is_inverted(film)


@pytest.mark.parametrize("seed", range(12))
def test_phantoms_are_upright_and_seen_when_inverted(seed: int) -> None:
    film = phantom.draw(seed, finding=phantom.FINDINGS[seed % 6], rows=500, columns=400)
    assert code_of(film) is None
    assert not is_inverted(film)
    assert is_inverted(255 - film)


def test_polarity_is_odd_and_blank_films_have_none() -> None:
    film = phantom.draw(3, rows=500, columns=400)
    assert polarity(255 - film) == pytest.approx(-polarity(film), abs=0.01)
    assert polarity(np.full((500, 400), 7, np.uint8)) == 0


@pytest.mark.parametrize("shape", [(200, 200), (201, 333), (17, 900)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    film = phantom.draw(3, rows=shape[0], columns=shape[1])
    check_pixels(film)
    assert -1 <= polarity(film) <= 1
