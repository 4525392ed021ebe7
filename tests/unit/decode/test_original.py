"""What a viewer gets: the values of pydicom's Modality LUT, bit for bit, and the look that the models saw at first."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.not_analysed import NotAnalysed
from schemas.original import Original
from tests.unit.decode.films import encoded, film, lut_item, row
from worker.decode.display import Window
from worker.decode.film import read_film
from worker.decode.original import read_original
from worker.simulate import phantom

RULES = GateRules()
SMALL = {"rows": 240, "columns": 210}
DEEP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
CALIBRATED = {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.22, 0.11]}


def saved(folder: Path, ds: Dataset) -> Path:
    path = folder / "film.dcm"
    path.write_bytes(encoded(ds))
    return path


def modality(original: Original) -> NDArray[np.float64]:
    return original.values * original.slope + original.intercept


def look(original: Original) -> NDArray[np.uint8]:
    """As `static/film-pixels.js` shows it at first."""
    x, window = modality(original), original.window
    if window.curve:
        t = np.clip((x - window.center) / window.width + 0.5, 0, 1)
        y = np.interp(t, np.linspace(0, 1, len(window.curve)), window.curve)
    else:
        y = Window(center=window.center, width=window.width, function=window.function)(x)
    shown = np.floor(255 * (1 - y if original.inverse else y) + 0.5).astype(np.uint8)
    if original.padding is not None:
        shown[(original.values >= original.padding[0]) & (original.values <= original.padding[1])] = 0
    return shown


@pytest.mark.parametrize(
    ("cells", "elements"),
    [
        (DEEP, {"BitsStored": 12, "HighBit": 11}),
        (DEEP, {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}),
        (DEEP, {"RescaleSlope": 1, "RescaleIntercept": -1024}),
        (DEEP, {"RescaleSlope": "0.234542", "RescaleIntercept": "-3.5"}),
        (DEEP, {"RescaleSlope": -2, "RescaleIntercept": 9000}),
        (DEEP - 2048, {"PixelRepresentation": 1}),  # int16 as two's complement
        (DEEP - 2048, {"PixelRepresentation": 1, "RescaleSlope": 2, "RescaleIntercept": 100}),
        ((DEEP - 2048) & 0x0FFF, {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11}),
        (DEEP * 16, {}),
        ((DEEP // 16).astype(np.uint8), {}),
        (DEEP, {"syntax": ExplicitVRBigEndian}),
        (DEEP % 64, {"ModalityLUTSequence": [lut_item([(n * n) % 5000 for n in range(64)])]}),
    ],
)
def test_the_values_are_those_of_pydicom(tmp_path: Path, cells: NDArray[Any], elements: dict[str, Any]) -> None:
    path = saved(tmp_path, film(cells, **elements))
    original = read_original(path)
    ds = dcmread(path)
    assert np.array_equal(modality(original), apply_modality_lut(ds.pixel_array, ds))
    assert original.inverse == ("MONOCHROME1" in elements.values())


def test_bits_beside_the_stored_ones_are_no_part_of_a_value(tmp_path: Path) -> None:
    original = read_original(saved(tmp_path, film(row(0x1ABC, 0xFABC, 0xF001), BitsStored=12, HighBit=11)))
    assert original.values.tolist() == [[0xABC, 0xABC, 0x001]]
    shifted = read_original(saved(tmp_path, film(row(0xABC1, 0x001F), BitsStored=12, HighBit=15)))
    assert shifted.values.tolist() == [[0xABC, 0x001]]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_phantom_looks_as_the_models_saw_it(
    tmp_path: Path, signed: bool, photometric: Any, window: bool, bits: int
) -> None:
    path = tmp_path / "film.dcm"
    ds = phantom.dataset(3, bits_stored=bits, signed=signed, photometric=photometric, window=window, **SMALL)
    ds.save_as(path, enforce_file_format=True)
    original = read_original(path)
    assert np.array_equal(look(original), read_film(path, RULES).pixels)
    assert original.window.from_header == window
    assert original.values.dtype == (np.int16 if signed else np.uint8 if bits == 8 else np.uint16)
    assert original.view == "PA"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_compression_without_loss_loses_nothing(tmp_path: Path, syntax: str) -> None:
    plain, coded = tmp_path / "plain.dcm", tmp_path / "coded.dcm"
    phantom.dataset(1, **SMALL).save_as(plain, enforce_file_format=True)
    phantom.dataset(1, transfer_syntax=syntax, **SMALL).save_as(coded, enforce_file_format=True)
    assert np.array_equal(read_original(plain).values, read_original(coded).values)


def test_a_voi_lut_and_a_sigmoid_are_the_first_look(tmp_path: Path) -> None:
    ds = phantom.dataset(3, window=False, **SMALL)
    bend = [int(65535 * (n / 4095) ** 1.7) for n in range(4096)]
    ds.VOILUTSequence = [lut_item(bend)]
    path = tmp_path / "film.dcm"
    ds.save_as(path, enforce_file_format=True)
    original = read_original(path)
    assert (original.window.center, original.window.width) == (2047.5, 4095)
    assert np.abs(look(original).astype(int) - read_film(path, RULES).pixels).max() <= 1
    del ds.VOILUTSequence
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 2000, 1800, "SIGMOID"
    ds.save_as(path, enforce_file_format=True)
    assert read_original(path).window.function == "SIGMOID"
    assert np.array_equal(look(read_original(path)), read_film(path, RULES).pixels)


def test_a_window_that_shows_nothing_is_not_opened_with(tmp_path: Path) -> None:
    ds = phantom.dataset(1, **SMALL)
    ds.WindowCenter, ds.WindowWidth = 60000, 10
    ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    original = read_original(tmp_path / "film.dcm")
    assert not original.window.from_header
    assert np.array_equal(look(original), read_film(tmp_path / "film.dcm", RULES).pixels)


def test_a_blank_film_has_a_window_too(tmp_path: Path) -> None:
    window = read_original(saved(tmp_path, film(np.full((30, 30), 7, np.uint16)))).window
    assert (window.center, window.width) == (7, 1)


def test_padding_is_told_in_stored_values(tmp_path: Path) -> None:
    cells = np.tile(np.array([60, 100, 3000, 4000], np.uint16), (4, 1))
    elements = {"PixelPaddingValue": 50, "PixelPaddingRangeLimit": 70, "PhotometricInterpretation": "MONOCHROME1"}
    original = read_original(saved(tmp_path, film(cells, **elements)))
    assert original.padding == (50, 70)
    assert look(original)[:, 0].tolist() == [0] * 4  # black, although low values are bright
    assert look(original)[:, 1].tolist() == [255] * 4


@pytest.mark.parametrize(
    ("elements", "spacing", "at_detector", "aspect"),
    [
        ({}, None, False, 1.0),
        ({"PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), False, 1.0),
        ({"ImagerPixelSpacing": [0.168, 0.168]}, (0.168, 0.168), True, 1.0),
        (CALIBRATED, (0.2, 0.1), False, 2.0),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), True, 1.0),
        ({"PixelSpacing": [0, 0]}, None, False, 1.0),
        ({"PixelSpacing": ["0.2"]}, None, False, 1.0),
        ({"PixelAspectRatio": [3, 2]}, None, False, 1.5),
        ({"PixelAspectRatio": [3, 0]}, None, False, 1.0),
        ({"PixelAspectRatio": [1000, 1]}, None, False, 1.0),
    ],
)
def test_how_large_a_pixel_is(
    tmp_path: Path, elements: dict[str, Any], spacing: Any, at_detector: bool, aspect: float
) -> None:
    original = read_original(saved(tmp_path, film(DEEP, **elements)))
    assert (original.spacing, original.spacing_at_detector, original.aspect) == (spacing, at_detector, aspect)


def test_a_film_that_is_not_analysed_is_shown_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    phantom.dataset(1, view="LL", age_years=3, **SMALL).save_as(path, enforce_file_format=True)
    with pytest.raises(NotAnalysable):
        read_film(path, RULES)
    assert read_original(path).values.shape == (240, 210)


def test_what_no_film_viewer_shows_is_refused(tmp_path: Path) -> None:
    for elements, code in (
        ({"NumberOfFrames": 2}, NotAnalysed.MULTI_FRAME),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, NotAnalysed.COLOUR),
        ({"PixelData": None}, NotAnalysed.NO_PIXELS),
        ({"Rows": 60_000}, NotAnalysed.UNREADABLE),
    ):
        with pytest.raises(NotAnalysable) as refused:
            read_original(saved(tmp_path, film(DEEP, **elements)))
        assert refused.value.code is code


def test_broken_bytes_are_refused_and_nothing_else_escapes(tmp_path: Path) -> None:
    whole = encoded(phantom.dataset(1, rows=64, columns=64))
    chance = random.Random(5)
    for _ in range(300):
        broken = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 8)):
            if broken:
                broken[chance.randrange(min(len(broken), 1500))] = chance.randrange(256)
        (tmp_path / "film.dcm").write_bytes(broken)
        try:
            original = read_original(tmp_path / "film.dcm")
        except NotAnalysable:
            continue
        look(original)
