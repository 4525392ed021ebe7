"""Who a film is, from the first bytes of its data set, without decoding it.

The elements up to (0020,0010) are walked one by one; nothing nested is read, nothing after them is looked at. Written
for hostile input: no recursion, every length checked, a bound on bytes, depth and value lengths.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct, unpack_from
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.uid import UID
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName

from schemas.errors import Unreadable, WrongSopClass
from schemas.identity import InstanceRef, StudyContext, is_uid

LIMIT: Final = 4 << 20  # bytes of (inflated) data set in which identity must be found
_FIRST_LOOK: Final = 8 << 10
_DEPTH: Final = 64
_VALUE: Final = 4096  # bytes of one value that are kept
_UNDEFINED: Final = 0xFFFFFFFF
_DELIMITERS: Final = frozenset({0xFFFEE00D, 0xFFFEE0DD})
_ITEM: Final = 0xFFFEE000

_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_LAST: Final = 0x00200010
# Tag -> field of StudyContext, and how many characters its VR allows (PS3.5 6.2).
_CONTEXT: Final[Mapping[int, tuple[str, int]]] = {
    0x00080020: ("study_date", 8),
    0x00080030: ("study_time", 16),
    0x00080050: ("accession_number", 16),
    0x00080060: ("modality", 16),
    0x00080080: ("institution_name", 64),
    0x00080090: ("referring_physician_name", 194),
    0x00081030: ("study_description", 64),
    0x00100010: ("patient_name", 194),
    0x00100020: ("patient_id", 64),
    0x00100021: ("issuer_of_patient_id", 64),
    0x00100030: ("patient_birth_date", 8),
    0x00100040: ("patient_sex", 16),
    0x00200010: ("study_id", 16),
}
_NAMES: Final = frozenset({0x00080090, 0x00100010})
_WANTED: Final = frozenset({_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, *_CONTEXT})
# PS3.5 7.1.2: these VRs have two reserved bytes and a 32-bit length.
_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What is known of an instance before anybody decodes it."""

    instance: InstanceRef
    context: StudyContext


class _MoreBytes(Exception):
    """The head is longer than what has arrived."""


class HeadReader:
    """Takes the data set as it arrives and keeps only as much of it as `head` needs.

    Parameters
    ----------
    transfer_syntax:
        UID that was negotiated for the data set.
    """

    def __init__(self, transfer_syntax: str) -> None:
        syntax = UID(transfer_syntax)
        self._transfer_syntax = transfer_syntax
        # A syntax that pydicom does not know is taken as PS3.5 A.4 says of every encapsulated one.
        known = syntax.is_transfer_syntax and not syntax.is_private
        self._explicit = not (known and syntax.is_implicit_VR)
        self._little = not known or syntax.is_little_endian
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if known and syntax.is_deflated else None
        self._bytes = bytearray()
        self._look_at = _FIRST_LOOK
        self._found: dict[int, bytes] | None = None

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """The next bytes of the encoded data set. Raises `Unreadable` as soon as it cannot become readable."""
        room = LIMIT - len(self._bytes)
        if self._found is not None:
            return
        if room <= 0:
            raise Unreadable(f"no identity in the first {LIMIT >> 20} MiB of the data set")
        try:
            self._bytes += chunk[:room] if self._inflate is None else self._inflate.decompress(chunk, room)
        except zlib.error as error:
            raise Unreadable("the deflated data set cannot be inflated") from error
        if len(self._bytes) >= self._look_at:
            self._look_at = 2 * len(self._bytes)
            self._look()

    def head(self, *, sop_class: str, sop_uid: str) -> Head:
        """Identity and context, once the whole data set has been fed.

        Parameters
        ----------
        sop_class, sop_uid:
            Affected SOP Class and Instance UID of the command set (PS3.7 9.1.1), which must agree with the data set.

        Raises
        ------
        Unreadable
            A UID is missing, malformed, or not the command set's; or the data set is not what its syntax says.
        WrongSopClass
            The data set is of another SOP class than the command set names.
        """
        if self._found is None:
            self._look(whole=True)
        found = self._found or {}
        instance = InstanceRef(
            study_uid=_uid(found, _STUDY, "Study Instance UID"),
            series_uid=_uid(found, _SERIES, "Series Instance UID"),
            sop_uid=_uid(found, _SOP_INSTANCE, "SOP Instance UID"),
            sop_class=_uid(found, _SOP_CLASS, "SOP Class UID"),
            transfer_syntax=self._transfer_syntax,
        )
        if instance.sop_class != sop_class:
            raise WrongSopClass("command set and data set name different SOP classes")
        if instance.sop_uid != sop_uid:
            raise Unreadable("command set and data set name different SOP instances")
        return Head(instance=instance, context=_context(found))

    def _look(self, *, whole: bool = False) -> None:
        found: dict[int, bytes] = {}
        try:
            _walk(self._bytes, explicit=self._explicit, little=self._little, found=found)
        except _MoreBytes:
            if not whole:
                return
        self._found = found
        self._bytes = bytearray()


def _walk(data: bytearray, *, explicit: bool, little: bool, found: dict[int, bytes]) -> None:
    """Collect the wanted elements of the outermost level into `found`. Raises `_MoreBytes`, `Unreadable`."""
    order = "<" if little else ">"
    tag_at = Struct(order + "HH").unpack_from
    outer: list[
        bool
    ] = []  # one per sequence or item of undefined length that is open: whether VR is explicit around it
    at = 0
    while True:
        if at + 8 > len(data):
            raise _MoreBytes
        group, element = tag_at(data, at)
        tag = group << 16 | element
        # An item whose sequence element was lost (seen from an ultrasound device) is passed over like an element.
        if not outer and tag > _LAST and tag != _ITEM:
            return
        vr, length, at = _header(data, at, order, explicit=explicit and group != 0xFFFE)
        if tag in _DELIMITERS:  # of something open, else the walk has ended above
            explicit = outer.pop()
        elif length == _UNDEFINED:
            if len(outer) >= _DEPTH:
                raise Unreadable("sequences nested too deep")
            outer.append(explicit)
            explicit = explicit and vr != b"UN"  # PS3.5 6.2.2 note 2: implicit inside
        else:
            if not outer and tag in _WANTED:
                if at + length > len(data):
                    raise _MoreBytes
                found[tag] = bytes(data[at : at + min(length, _VALUE)])
            at += length


def _header(data: bytearray, at: int, order: str, *, explicit: bool) -> tuple[bytes, int, int]:
    """VR (empty when implicit), value length, and where the value begins (PS3.5 7.1)."""
    vr = bytes(data[at + 4 : at + 6]) if explicit else b""
    # Senders mix in elements without VR; two capital letters cannot be the low half of a sane length.
    if not (vr.isalpha() and vr.isupper()):
        return b"", unpack_from(order + "I", data, at + 4)[0], at + 8
    if vr not in _LONG:
        return vr, unpack_from(order + "H", data, at + 6)[0], at + 8
    if at + 12 > len(data):
        raise _MoreBytes
    return vr, unpack_from(order + "I", data, at + 8)[0], at + 12


def _uid(found: Mapping[int, bytes], tag: int, name: str) -> str:
    raw = found.get(tag, b"").rstrip(b"\0 ")
    if not raw:
        raise Unreadable(f"{name} is missing")
    value = raw.decode("ascii", errors="replace")
    if not is_uid(value, lenient=True):
        raise Unreadable(f"{name} is not a UID")
    return value


def _encodings(raw: bytes) -> list[str]:
    names = [name.strip() for name in raw.decode("ascii", errors="replace").strip("\0 ").split("\\")]
    # pydicom would take any codec that Python has for a character set.
    defined = [name if name.isprintable() and (name in python_encoding or name[:3] == "ISO") else "" for name in names]
    try:
        return convert_encodings(defined)
    except LookupError:
        return ["iso8859"]


def _context(found: Mapping[int, bytes]) -> StudyContext:
    encodings = _encodings(found.get(_CHARACTER_SET, b""))
    fields = {}
    for tag, (field, longest) in _CONTEXT.items():
        if tag not in found:
            continue
        raw = found[tag].strip(b"\0 ")
        try:
            text = str(PersonName(raw, encodings)) if tag in _NAMES else decode_bytes(raw, encodings, TEXT_VR_DELIMS)
        except (UnicodeError, LookupError):
            text = raw.decode("iso8859")
        fields[field] = "".join(c for c in text if c.isprintable()).strip()[:longest]
    return StudyContext(**fields)
