"""The grayscale pipeline against numbers computed by hand from PS3.3 C.11."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.unit.decode.films import encoded, film, lut_item, row, shown
from worker.decode.display import rendering, to_display
from worker.decode.header import open_source
from worker.decode.pixels import stored_pixels

U12 = {"BitsStored": 12, "HighBit": 11}


def displayed(*values: int, **elements: object) -> list[int]:
    return shown(film(row(*values), **elements))[0].tolist()


def test_eight_bits_without_voi_are_shown_as_they_are() -> None:
    cells = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(film(cells)), cells)


def test_range_is_found_where_no_voi_lut_is_given() -> None:
    assert displayed(100, 600, 1100, **U12) == [0, 128, 255]


def test_window_linear() -> None:
    # C.11.2.1.2.1, center 2048, width 4096: x = 2047.5 - 2047.5 -> 0, ((x - 2047.5) / 4095 + 0.5) * 255
    values = displayed(0, 1, 819, 2048, 3276, 4095, WindowCenter=2048, WindowWidth=4096, **U12)
    assert values == [0, 0, 51, 128, 204, 255]


def test_window_linear_clips_at_its_ends() -> None:
    # center 100, width 11: from 94.5 to 104.5
    assert displayed(94, 95, 100, 104, 105, WindowCenter=100, WindowWidth=11, **U12) == [0, 13, 140, 242, 255]


def test_window_linear_of_width_one_is_a_threshold() -> None:
    assert displayed(99, 100, 101, WindowCenter=100, WindowWidth=1, **U12) == [0, 255, 255]


def test_window_linear_exact() -> None:
    # C.11.2.1.3.2, center 100, width 20: from 90 to 110 without the half
    values = displayed(90, 95, 100, 105, 110, WindowCenter=100, WindowWidth=20, VOILUTFunction="LINEAR_EXACT", **U12)
    assert values == [0, 64, 128, 191, 255]


def test_window_sigmoid() -> None:
    # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - 100) / 40))
    values = displayed(0, 80, 100, 120, 200, WindowCenter=100, WindowWidth=40, VOILUTFunction="SIGMOID", **U12)
    assert values == [0, 30, 128, 225, 255]


def test_first_of_several_windows() -> None:
    values = displayed(0, 50, 100, WindowCenter=[50, 1000], WindowWidth=[101, 10], **U12)
    assert values == [1, 129, 255]


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_an_impossible_window_is_no_window(width: float) -> None:
    assert displayed(100, 600, 1100, WindowCenter=500, WindowWidth=width, **U12) == [0, 128, 255]


def test_rescale_comes_before_the_window() -> None:
    # 2 x + 10: 0 -> 10, 50 -> 110, 100 -> 210; window from 10 to 210
    elements = {"RescaleSlope": 2, "RescaleIntercept": 10, "WindowCenter": 110.5, "WindowWidth": 201}
    assert displayed(0, 50, 100, **elements, **U12) == [0, 128, 255]


def test_a_falling_rescale_turns_the_film() -> None:
    elements = {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 2048, "WindowWidth": 4096}
    assert displayed(0, 4095, **elements, **U12) == [255, 0]


def test_modality_lut_in_place_of_rescale() -> None:
    # values below the first entry take the first, values beyond the last take the last (C.11.1.1.1)
    lut = [lut_item([1000, 2000, 3000], first=10)]
    elements = {"ModalityLUTSequence": lut, "RescaleSlope": 7, "RescaleIntercept": 7}
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    assert displayed(0, 10, 11, 12, 4095, **elements, **window, **U12) == [0, 0, 128, 255, 255]


def test_voi_lut_goes_before_a_window() -> None:
    lut = [lut_item([0, 0x4000, 0xFFFF], first=100)]
    values = displayed(0, 100, 101, 102, 103, VOILUTSequence=lut, WindowCenter=1, WindowWidth=2, **U12)
    assert values == [0, 0, 64, 255, 255]


def test_voi_lut_of_ten_bits() -> None:
    assert displayed(0, 1, 2, VOILUTSequence=[lut_item([0, 512, 1023], bits=10)], **U12) == [0, 128, 255]


def test_voi_lut_that_says_sixteen_bits_and_uses_twelve() -> None:
    assert displayed(0, 1, 2, VOILUTSequence=[lut_item([0, 2048, 4095], bits=16)], **U12) == [0, 128, 255]


def test_voi_lut_of_eight_bits_packed_in_words() -> None:
    assert displayed(0, 1, 2, 3, VOILUTSequence=[lut_item(bytes([0, 64, 128, 255]), bits=8, count=4)], **U12) == [
        *(0, 64, 128, 255)
    ]


def test_voi_lut_of_65536_entries_says_zero() -> None:
    data = np.arange(65536, dtype="<u2").tobytes()
    assert displayed(0, 0x8000, 0xFFFF, VOILUTSequence=[lut_item(data, count=65536)]) == [0, 128, 255]


def test_voi_lut_for_signed_values() -> None:
    lut = [lut_item([0, 0x8000, 0xFFFF], first=-1)]
    signed = {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11}
    assert displayed(0x0FFE, 0x0FFF, 0, 1, VOILUTSequence=lut, **signed) == [0, 0, 128, 255]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_lut_data_as_words_in_every_byte_order(syntax: str) -> None:
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    lut = [lut_item(np.array([0, 0x4000, 0xFFFF], order).tobytes(), count=3)]
    ds = film(row(0, 1, 2), syntax=syntax, VOILUTSequence=lut, **U12)
    assert shown(ds)[0].tolist() == [0, 64, 255]


@pytest.mark.parametrize("item", [lut_item([], count=3), lut_item([1, 2], count=3), lut_item(b"", count=5)])
def test_a_broken_lut_is_no_lut(item: object) -> None:
    assert displayed(100, 600, 1100, VOILUTSequence=[item], **U12) == [0, 128, 255]


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # said twice, done once
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity(photometric: str, shape: str | None, inverted: bool) -> None:
    elements: dict[str, object] = {"PhotometricInterpretation": photometric, **U12}
    if shape is not None:
        elements["PresentationLUTShape"] = shape
    values = displayed(0, 1024, 4095, WindowCenter=2048, WindowWidth=4096, **elements)
    assert values == ([255, 191, 0] if inverted else [0, 64, 255])


def test_polarity_comes_after_the_voi_lut() -> None:
    # the window selects the low half; inverted before it, the high half would be selected
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1024, "WindowWidth": 2048}
    assert displayed(0, 2047, 4095, **elements, **U12) == [255, 0, 0]


def test_padding_is_black_and_out_of_the_range() -> None:
    assert displayed(0, 100, 600, 1100, PixelPaddingValue=0, **U12) == [0, 0, 128, 255]
    assert displayed(4095, 100, 600, 1100, PixelPaddingValue=4095, **U12) == [0, 0, 128, 255]


def test_padding_is_black_under_monochrome1_too() -> None:
    values = displayed(0, 100, 1100, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1", **U12)
    assert values == [0, 255, 0]


@pytest.mark.parametrize(("value", "limit"), [(0, 50), (50, 0)])
def test_padding_range_has_both_ends(value: int, limit: int) -> None:
    values = displayed(0, 50, 51, 1051, PixelPaddingValue=value, PixelPaddingRangeLimit=limit, **U12)
    assert values == [0, 0, 0, 255]
    assert displayed(50, 51, 551, 1051, PixelPaddingValue=value, PixelPaddingRangeLimit=limit, **U12)[2] == 128


def test_padding_of_signed_pixels() -> None:
    ds = film(row(0x8000, 0xFFFF, 0, 1), PixelRepresentation=1)
    ds.add_new("PixelPaddingValue", "SS", -32768)
    assert shown(ds)[0].tolist() == [0, 0, 128, 255]


def test_signed_values_below_sixteen_bits() -> None:
    # 12 bits, two's complement: 0x800 is -2048, 0x7FF is 2047
    signed = {"PixelRepresentation": 1, "WindowCenter": 0, "WindowWidth": 4096, **U12}
    assert displayed(0x0800, 0x0FFF, 0x0000, 0x07FF, **signed) == [0, 127, 128, 255]


def test_overlays_in_unused_bits_are_masked() -> None:
    elements = {"WindowCenter": 2048, "WindowWidth": 4096, **U12}
    assert displayed(0x0000, 0xF000, 0x8FFF, 0x0FFF, **elements) == [0, 0, 255, 255]


def test_high_bit_above_the_stored_bits() -> None:
    elements = {"BitsStored": 12, "HighBit": 15, "WindowCenter": 2048, "WindowWidth": 4096}
    assert displayed(0x000F, 0x800F, 0xFFF0, **elements) == [0, 128, 255]


def test_big_endian_looks_the_same() -> None:
    cells = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    elements = {"WindowCenter": 1000, "WindowWidth": 1500, **U12}
    assert np.array_equal(shown(film(cells, syntax=ExplicitVRBigEndian, **elements)), shown(film(cells, **elements)))


def test_one_hot_cell_does_not_darken_the_film() -> None:
    cells = np.tile(np.arange(1000, 2000, dtype=np.uint16), (20, 1))
    cells[0, 0] = 65535
    assert shown(film(cells))[1, -1] == 255
    assert shown(film(cells))[0, 0] == 255


@pytest.mark.parametrize("bits", range(8, 17))
def test_every_depth_spans_black_to_white(bits: int) -> None:
    top = (1 << bits) - 1
    ds = film(row(0, top // 2, top), BitsStored=bits, HighBit=bits - 1, WindowCenter=1 << bits - 1, WindowWidth=top + 1)
    assert shown(ds)[0].tolist() in ([0, 127, 255], [0, 128, 255])


@pytest.mark.parametrize("junk", ["", "abc", "1e999", "nan", "1\\2"])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_junk_numbers_count_as_absent(keyword: str, junk: str) -> None:
    ds = film(row(100, 600, 1100), **U12)
    ds.add_new(keyword, "LO", junk)  # as text, for pydicom writes no junk numbers; the VR follows in the bytes
    tag = struct.pack("<HH", ds[keyword].tag.group, ds[keyword].tag.element)
    source = open_source(io.BytesIO(encoded(ds).replace(tag + b"LO", tag + b"DS")))
    stored, form = stored_pixels(source)
    assert to_display(stored, form, rendering(source))[0].tolist() == [0, 128, 255]
