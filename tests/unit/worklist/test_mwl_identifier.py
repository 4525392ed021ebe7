"""What is asked, taken apart; whatever it is, within limits."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests.integration.raw_peer import encode
from worker.worklist.identifier import Key, Malformed, parse


def query() -> Dataset:
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "DX", ""
    asked = Dataset()
    asked.PatientName, asked.PatientID = "Doe*", ""
    asked.ScheduledProcedureStepSequence = [step]
    return asked


@pytest.mark.parametrize("implicit_vr", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_keys_and_items(implicit_vr: bool, undefined: bool) -> None:
    asked = query()
    asked["ScheduledProcedureStepSequence"].is_undefined_length = undefined
    asked.ScheduledProcedureStepSequence[0].is_undefined_length_sequence_item = undefined
    keys = parse(encode(asked, implicit=implicit_vr), implicit_vr=implicit_vr)
    assert [(key.tag, key.vr, key.value) for key in keys] == [
        (0x00100010, "PN", b"Doe*"),
        (0x00100020, "LO", b""),
        (0x00400100, "SQ", b""),
    ]
    assert keys[2].items == ((Key(0x00080060, "CS", b"DX"), Key(0x00400001, "AE", b"")),)


def nested(depth: int, *, undefined: bool) -> bytes:
    inside = b""
    for _ in range(depth):
        length = 0xFFFFFFFF if undefined else len(inside) + 8
        ends = pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0) if undefined else b""
        item = pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if undefined else len(inside))
        inside = pack("<HHI", 0x0040, 0x0100, length) + item + inside + ends
    return inside


@pytest.mark.parametrize("undefined", [True, False])
def test_depth_has_an_end(undefined: bool) -> None:
    assert parse(nested(3, undefined=undefined), implicit_vr=True)
    with pytest.raises(Malformed, match="in one another"):
        parse(nested(900, undefined=undefined), implicit_vr=True)


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (pack("<HHI", 0x0010, 0x0010, 1) * 600, "beyond the end|more than"),
        (pack("<HHI", 0x0010, 0x0010, 0) * 600, "more than 512 keys"),
        (bytes(40_000), "more than 32768 bytes"),
        (b"\x10\0\x10\0\xff\xff\0\0", "beyond the end"),
        (b"\x10\0", "beyond the end"),
        (pack("<HHIHHI", 0x0040, 0x0100, 8, 0x0010, 0x0010, 0), "no items"),
        (pack("<HHI", 0x0040, 0x0100, 8), "beyond the end"),
    ],
)
def test_what_is_no_identifier_is_told(encoded: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        parse(encoded, implicit_vr=True)


def test_explicit_without_a_vr() -> None:
    with pytest.raises(Malformed, match="without a VR"):
        parse(encode(query(), implicit=True), implicit_vr=False)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_keys_or_malformed(encoded: bytes, implicit_vr: bool) -> None:
    with suppress(Malformed):
        parse(encoded, implicit_vr=implicit_vr)
