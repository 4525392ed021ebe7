"""Identifiers of a query, as bytes (PS3.5 7, PS3.4 C.2.2): what is asked comes in, what is answered goes out.

What is asked is untrusted and small, so it is taken apart here within limits of number, length and depth: nothing of it
is ever converted by a library that would warn with the patient's name in its words. What is answered is put together
from parts that are the same in ten thousand answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, pack
from typing import Final

from pydicom.datadict import dictionary_VR

MOST_BYTES: Final = 32 << 10  # a query for everything that there is has some 4 KiB
MOST_KEYS: Final = 512
DEEPEST: Final = 6  # sequences in one another

_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})  # PS3.5 7.1.2
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_TAG: Final = Struct("<HH")
_SHORT_LENGTH: Final = Struct("<H")
_LENGTH: Final = Struct("<I")


class Malformed(Exception):
    """The bytes are no identifier, or too much of one; the words may be told to the peer."""


@dataclass(frozen=True, slots=True)
class Key:
    """An element of a query. A sequence has `items`, any other element its value as it came."""

    tag: int
    vr: str  # as the peer says; in Implicit VR the dictionary's; empty: not known
    value: bytes = b""
    items: tuple[tuple[Key, ...], ...] | None = None


def parse(data: bytes, *, implicit_vr: bool) -> tuple[Key, ...]:
    """The elements of a query, encoded little endian. Raises `Malformed`."""
    if len(data) > MOST_BYTES:
        raise Malformed(f"Identifier of more than {MOST_BYTES} bytes")
    return _Reader(data, implicit_vr).keys(len(data), 0)


class _Reader:
    def __init__(self, data: bytes, implicit_vr: bool) -> None:
        self._data, self._implicit_vr = data, implicit_vr
        self._at = 0
        self._count = 0

    def keys(self, end: int, depth: int) -> tuple[Key, ...]:
        """Up to `end`, or to the delimiter of an item of undefined length."""
        if depth > DEEPEST:
            raise Malformed("sequences in one another beyond reason")
        keys: list[Key] = []
        while self._at < end:
            tag = self._tag()
            if tag == _ITEM_END:
                self._take(_LENGTH)
                break
            self._count += 1
            if self._count > MOST_KEYS:
                raise Malformed(f"more than {MOST_KEYS} keys")
            keys.append(self._key(tag, end, depth))
        return tuple(keys)

    def _key(self, tag: int, end: int, depth: int) -> Key:
        if self._implicit_vr:
            vr, length = vr_of(tag), self._take(_LENGTH)
        else:
            vr = self._bytes(2).decode("latin-1")
            if not (vr.isascii() and vr.isupper() and vr.isalpha()):
                raise Malformed("an element without a VR")
            if vr in _LONG:
                self._bytes(2)
                length = self._take(_LENGTH)
            else:
                length = self._take(_SHORT_LENGTH)
        if vr == "SQ" or length == _UNDEFINED:
            return Key(tag, "SQ", items=self._items(end if length == _UNDEFINED else self._at + length, depth))
        return Key(tag, vr, self._bytes(length))

    def _items(self, end: int, depth: int) -> tuple[tuple[Key, ...], ...]:
        items: list[tuple[Key, ...]] = []
        if end > len(self._data):
            raise Malformed("an element beyond the end")
        while self._at < end:
            tag, length = self._tag(), self._take(_LENGTH)
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise Malformed("a sequence of what are no items")
            items.append(self.keys(end if length == _UNDEFINED else min(self._at + length, end), depth + 1))
        return tuple(items)

    def _tag(self) -> int:
        group, element = _TAG.unpack(self._bytes(4))
        return int(group) << 16 | int(element)

    def _take(self, struct: Struct) -> int:
        return int(struct.unpack(self._bytes(struct.size))[0])

    def _bytes(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Malformed("an element beyond the end")
        self._at += count
        return taken


def vr_of(tag: int) -> str:
    """The dictionary's VR; empty for what it does not know."""
    try:
        return dictionary_VR(tag)[:2]  # of "US or SS" the first
    except KeyError:
        return ""


def element_start(tag: int, vr: str, *, implicit_vr: bool) -> tuple[bytes, Struct]:
    """What an element begins with, and how its length is written."""
    start = pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit_vr:
        return start, _LENGTH
    if vr in _LONG:
        return start + vr.encode("ascii") + b"\0\0", _LENGTH
    return start + vr.encode("ascii"), _SHORT_LENGTH


def element(tag: int, vr: str, value: bytes, *, implicit_vr: bool) -> bytes:
    """An encoded element; its value is padded to an even length with what its VR asks for (PS3.5 6.2)."""
    start, length = element_start(tag, vr, implicit_vr=implicit_vr)
    if len(value) % 2:
        value += padding(vr)
    return start + length.pack(len(value)) + value


def padding(vr: str) -> bytes:
    """The byte that makes a value even (PS3.5 6.2)."""
    return b"\0" if vr in {"UI", "OB", "UN"} else b" "


def item(elements: bytes) -> bytes:
    """An encoded item of a sequence."""
    return pack("<HHI", 0xFFFE, 0xE000, len(elements)) + elements
