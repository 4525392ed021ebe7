"""Printed forms: data sets encoded once, with gaps that are filled in for every report.

highdicom checks every content item that it builds and pydicom encodes one by one, some 60 ms for a report. Nearly
all of a report is the same every time, so it is built and encoded once (Explicit VR Little Endian, PS3.5 A.2), with
sequences and items of undefined length (PS3.5 7.5), so that a gap can be filled without touching what is around it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import VR

_LONG: Final = frozenset({VR.UT, VR.UC, VR.UR, VR.SQ})  # of the text VRs and SQ: four bytes of length (PS3.5 7.1.2)
_UNDEFINED: Final = 0xFFFFFFFF


def element(keyword: str, text: str) -> bytes:
    """A text element as it is encoded; UTF-8, padded to an even length with what its VR asks for (PS3.5 6.2)."""
    vr = VR(dictionary_VR(keyword))
    value = text.encode("utf-8")
    if len(value) % 2:
        value += b"\0" if vr is VR.UI else b" "
    return _header(keyword, vr, len(value)) + value


def sequence(keyword: str, items: bytes) -> bytes:
    """A sequence element around encoded items."""
    return _header(keyword, VR.SQ, _UNDEFINED) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def item(elements: bytes) -> bytes:
    """A sequence item around encoded elements."""
    start = struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED)
    return start + elements + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def encode(dataset: Dataset) -> bytes:
    """The elements of `dataset`, encoded; every sequence and item in it becomes one of undefined length."""
    _unbind(dataset)
    with DicomBytesIO() as stream:
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_dataset(stream, dataset, "utf-8")
        return stream.getvalue()


class Form:
    """Encoded elements with gaps.

    Parameters
    ----------
    encoded:
        What `encode` gave for a data set whose changing elements hold placeholder values.
    gaps:
        For every gap its keyword and placeholder; those that `encoded` does not have are no concern of this form.
    """

    def __init__(self, encoded: bytes, gaps: Mapping[str, tuple[str, str]]) -> None:
        names = {element(keyword, placeholder): name for name, (keyword, placeholder) in gaps.items()}
        parts = re.split(b"(" + b"|".join(map(re.escape, names)) + b")", encoded)
        self._printed = parts[::2]
        self._gaps = [(names[part], gaps[names[part]][0]) for part in parts[1::2]]

    def fill(self, **values: str) -> bytes:
        """The encoded elements with every gap filled, and no value left over (ValueError)."""
        if mismatch := values.keys() ^ {name for name, _ in self._gaps}:
            raise ValueError(f"gaps and values differ: {', '.join(sorted(mismatch))}")
        filled = [self._printed[0]]
        for (name, keyword), printed in zip(self._gaps, self._printed[1:], strict=True):
            filled += (element(keyword, values[name]), printed)
        return b"".join(filled)


def _header(keyword: str, vr: VR, length: int) -> bytes:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no DICOM keyword: {keyword}")
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.value.encode("ascii"))
    return start + (struct.pack("<HI", 0, length) if vr in _LONG else struct.pack("<H", length))


def _unbind(dataset: Dataset) -> None:
    for elem in dataset:
        if elem.VR == VR.SQ:
            elem.is_undefined_length = True
            for nested in elem.value:
                nested.is_undefined_length_sequence_item = True
                _unbind(nested)
