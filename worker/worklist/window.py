"""A window into the reading list that others look through by C-FIND (PS3.4 C.4.1, K.4.1, CC.2.8).

What a window shows is a table from keyword to value (`Table`). A query is made into a test of a study and a form of its
answer once; then ten thousand studies take a few microseconds each.

Only what was asked for is answered. What is asked for and not in the table comes back empty, and every response says
so by its status (0xFF01). Text is in ASCII where that is enough; else in the character set of the query, where that
is a single-byte one or a Chinese one and has all the characters, else in UTF-8 (ISO_IR 192).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from schemas.errors import RecordError
from worker.ports import Matches, QueryFailure
from worker.record.reading_list import OpenStudy
from worker.worklist.identifier import Key, Malformed, element, element_start, item, padding, parse, vr_of
from worker.worklist.matching import Test, WrongValue, test_of

log = logging.getLogger("hilum.worklist")

PENDING: Final = 0xFF00
PENDING_OPTIONAL_NOT_SUPPORTED: Final = 0xFF01
DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
UNABLE_TO_PROCESS: Final = 0xC001
CANNOT_UNDERSTAND: Final = 0xC000

_CHARACTER_SET: Final = 0x00080005
_LONGEST_KEY: Final = 1024  # bytes; a list of UIDs may be longer
_LONGEST_VALUE: Final = 10_240  # characters, what LT holds; in UTF-8 still within the 16 bits of a length
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")  # the backslash separates values; ESC would switch the repertoire
# Character sets without code extensions (PS3.3 C.12.1.1.2) and Python's names of them.
_CODECS: Final[Mapping[str, str]] = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 100": "iso8859_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 203": "iso8859_15",
    "ISO_IR 166": "iso8859_11",
    "ISO_IR 192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
_TEXT: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # the character set is of these, PS3.5 6.1.2.3

Value: TypeAlias = str | Callable[[Any], str]  # several values are separated by a backslash


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence: what its items are of, and what each shows of that."""

    of: Callable[[Any], Sequence[Any]]
    table: Table


Table: TypeAlias = Mapping[int, "Value | Items"]  # by tag
_Part: TypeAlias = bytes | Callable[[Any, str], bytes]  # of an answer: the same in each, or of a study and a codec


def table(attributes: Mapping[str, Value | Items]) -> Table:
    """A table by keyword, in the order of its tags. Raises ValueError for what is no keyword."""
    tags = {keyword: tag_for_keyword(keyword) for keyword in attributes}
    if unknown := [keyword for keyword, tag in tags.items() if tag is None]:
        raise ValueError(f"no DICOM keywords: {', '.join(unknown)}")
    return {tag: attributes[keyword] for keyword, tag in sorted(tags.items(), key=lambda pair: pair[1] or 0) if tag}


def text(value: str) -> str:
    """A text as somebody sent it, fit to be a value of one."""
    if not value.isprintable() or "\\" in value:
        value = _CONTROL.sub(" ", value)
    return value.strip()[:_LONGEST_VALUE]


class Window:
    """Implements `worker.ports.Window` over the reading list.

    Parameters
    ----------
    sop_classes:
        Under which it is asked.
    shows:
        What it shows of an `OpenStudy`.
    reading_list:
        Every open study, in the order in which they are answered. Raises `RecordError`.
    """

    def __init__(
        self, sop_classes: frozenset[str], shows: Table, reading_list: Callable[[], Sequence[OpenStudy]]
    ) -> None:
        self.sop_classes = sop_classes
        self.shows = shows
        self._reading_list = reading_list

    def find(self, identifier: bytes, *, implicit_vr: bool) -> Matches | QueryFailure:
        """The studies that match; the identifier is encoded little endian."""
        try:
            query = Query(parse(identifier, implicit_vr=implicit_vr), self.shows, implicit_vr=implicit_vr)
            studies = self._reading_list()
        except Malformed as error:
            return QueryFailure(CANNOT_UNDERSTAND, str(error))
        except Mismatch as error:
            return QueryFailure(DOES_NOT_MATCH_SOP_CLASS, str(error))
        except RecordError:
            log.exception("window-without-record")
            return QueryFailure(UNABLE_TO_PROCESS, "the worklist cannot be read now: ask again later")
        status = PENDING if query.supported else PENDING_OPTIONAL_NOT_SUPPORTED
        return Matches(status, query.answers(studies))


class Mismatch(Exception):
    """The identifier is not of this SOP class; the words may be told to the peer."""


class Query:
    """What is asked, made ready.

    Parameters
    ----------
    keys:
        What is asked for. Nothing at all is `Mismatch`.
    implicit_vr:
        How the answers are encoded, little endian.
    """

    def __init__(self, keys: Sequence[Key], shows: Table, *, implicit_vr: bool) -> None:
        self.supported = True  # every key is in the table
        self._implicit_vr = implicit_vr
        self._charset_asked, self._charset = _character_set(keys)
        if not any(key.tag != _CHARACTER_SET for key in keys):
            raise Mismatch("Identifier without a key")
        self._parts = self._form(keys, shows)
        tests = self._tests(keys, shows)
        self._test = _all_of(tests)

    def answers(self, studies: Sequence[Any]) -> Iterator[bytes]:
        """The encoded identifier of every one that matches."""
        test, parts = self._test, self._parts
        plain = self._named(self._charset if self._charset_asked else "")
        for study in studies:
            if test is None or test(study):
                try:
                    yield plain + _filled(parts, study, "ascii")
                except UnicodeEncodeError:
                    yield self._beyond_ascii(study)

    def _beyond_ascii(self, study: Any) -> bytes:
        codec = _CODECS.get(self._charset)
        if codec not in {None, "ascii", "utf_8"}:
            try:
                return self._named(self._charset) + _filled(self._parts, study, str(codec))
            except UnicodeEncodeError:
                pass
        return self._named("ISO_IR 192") + _filled(self._parts, study, "utf_8")

    def _named(self, character_set: str) -> bytes:
        if not character_set and not self._charset_asked:
            return b""
        return element(_CHARACTER_SET, "CS", character_set.encode("ascii"), implicit_vr=self._implicit_vr)

    def _form(self, keys: Sequence[Key], shows: Table) -> list[_Part]:
        """The parts of an answer in the order of their tags, those that never change put together."""
        parts: list[_Part] = []
        for key in sorted({key.tag: key for key in reversed(keys)}.values(), key=lambda key: key.tag):
            if key.tag == _CHARACTER_SET or not key.tag & 0xFFFF:  # a group length says nothing
                continue
            part = self._part(key, shows)
            if parts and isinstance(part, bytes) and isinstance(parts[-1], bytes):
                parts[-1] += part
            else:
                parts.append(part)
        return parts

    def _part(self, key: Key, shows: Table) -> _Part:
        shown = shows.get(key.tag)
        if shown is None:
            self.supported = False
            vr = "SQ" if key.items is not None else key.vr or "UN"
            return element(key.tag, vr, b"", implicit_vr=self._implicit_vr)
        vr = vr_of(key.tag)
        if key.vr not in {vr, "UN"}:
            raise Mismatch(f"{keyword_for_tag(key.tag)} has VR {vr}")
        if isinstance(shown, Items):
            return self._sequence(key, shown)
        if isinstance(shown, str):
            return element(key.tag, vr, shown.encode("ascii"), implicit_vr=self._implicit_vr)
        return self._element(key.tag, vr, shown)

    def _element(self, tag: int, vr: str, value: Callable[[Any], str]) -> _Part:
        start, length = element_start(tag, vr, implicit_vr=self._implicit_vr)
        pad, pack = padding(vr), length.pack

        def filled(study: Any, codec: str) -> bytes:
            encoded = value(study).encode(codec, _ERRORS[codec])
            if len(encoded) % 2:
                encoded += pad
            return start + pack(len(encoded)) + encoded

        return filled

    def _sequence(self, key: Key, shown: Items) -> _Part:
        items = key.items or ()
        if len(items) > 1:
            raise Mismatch(f"{keyword_for_tag(key.tag)} has one item in a query")
        # Without an item, or with an empty one, the whole sequence is asked for (C.2.2.2.6).
        asked = items[0] if items and items[0] else [_whole(tag, value) for tag, value in shown.table.items()]
        parts = self._form(asked, shown.table)
        start, length = element_start(key.tag, "SQ", implicit_vr=self._implicit_vr)

        def filled(study: Any, codec: str) -> bytes:
            encoded = b"".join([item(_filled(parts, one, codec)) for one in shown.of(study)])
            return start + length.pack(len(encoded)) + encoded

        return filled

    def _tests(self, keys: Sequence[Key], shows: Table) -> list[Callable[[Any], bool]]:
        tests = []
        for key in keys:
            shown = shows.get(key.tag)
            if isinstance(shown, Items):
                nested = _all_of([test for one in key.items or () for test in self._tests(one, shown.table)])
                if nested is not None:
                    tests.append(_in_an_item(shown.of, nested))
            elif shown is not None:
                test = self._value_test(key)
                if test is not None:
                    tests.append(_on_value(shown, test))
        return tests

    def _value_test(self, key: Key) -> Test | None:
        vr, keyword = vr_of(key.tag), keyword_for_tag(key.tag)
        if len(key.value) > _LONGEST_KEY and vr != "UI":
            raise Mismatch(f"{keyword} is longer than any value")
        try:
            return test_of(vr, _decoded(key.value, self._charset if vr in _TEXT else ""))
        except WrongValue:
            raise Mismatch(f"{keyword} is no {vr}") from None


_ERRORS: Final = dict.fromkeys(_CODECS.values(), "strict") | {"utf_8": "replace"}  # a lone surrogate has no UTF-8


def _filled(parts: Sequence[_Part], study: Any, codec: str) -> bytes:
    return b"".join([part if isinstance(part, bytes) else part(study, codec) for part in parts])


def _whole(tag: int, shown: Value | Items) -> Key:
    return Key(tag, vr_of(tag), items=() if isinstance(shown, Items) else None)


def _all_of(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool] | None:
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda study: all(test(study) for test in tests)


def _in_an_item(of: Callable[[Any], Sequence[Any]], test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda study: any(test(one) for one in of(study))


def _on_value(value: Value, test: Test) -> Callable[[Any], bool]:
    """A value that is several matches when one of them does."""
    if isinstance(value, str):
        matches = test(value)
        return lambda study: matches

    def on(study: Any) -> bool:
        found = value(study)
        return any(map(test, found.split("\\"))) if "\\" in found else test(found)

    return on


def _character_set(keys: Sequence[Key]) -> tuple[bool, str]:
    """Whether the character set is asked for, and the query's own. Raises `Malformed` for one that is not known."""
    given = next((key for key in keys if key.tag == _CHARACTER_SET), None)
    if given is None:
        return False, ""
    terms = [term.strip() for term in given.value.decode("latin-1").strip(" \0").split("\\")]
    if any(term not in _CODECS and term not in python_encoding for term in terms):
        raise Malformed("Specific Character Set is not known")
    return True, "\\".join(terms)


def _decoded(value: bytes, character_set: str) -> str:
    codec = _CODECS.get(character_set)
    if codec is not None:
        return value.decode("latin-1" if codec == "ascii" else codec, "replace")
    encodings = convert_encodings(character_set.split("\\"))
    try:
        return decode_bytes(value, encodings, set())
    except (LookupError, UnicodeError, ValueError) as error:
        raise Malformed("a value is not in the Specific Character Set") from error
