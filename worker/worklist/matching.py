"""Attribute matching of a C-FIND (PS3.4 C.2.2.2): from the value of a key to a test of a study's value.

Single value, list of UIDs, universal, wild card and range. Names match whatever their case, and in each of their
component groups (C.2.2.2.1.1). Several values in any key match like a list of UIDs. Every test takes time in proportion
to the value, whatever the pattern: there is no going back in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

Test: TypeAlias = Callable[[str], bool]

_DATE: Final = re.compile(r"\d{8}|\d{4}\.\d{2}\.\d{2}", re.ASCII)  # the dots are of ACR-NEMA, PS3.5 6.2
_TIME: Final = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?", re.ASCII)
_OFFSET: Final = r"(?:[+-](?:0\d|1[0-4])\d{2})"
_DATE_TIME: Final = re.compile(rf"(\d{{4,14}}(?:\.\d{{1,6}})?){_OFFSET}?", re.ASCII)
_DATE_TIMES: Final = re.compile(
    rf"(?P<since>\d{{4,14}}(?:\.\d{{1,6}})?{_OFFSET}?)?(?P<dash>-)?(?P<until>\d{{4,14}}(?:\.\d{{1,6}})?{_OFFSET}?)?",
    re.ASCII,
)
_EXACT: Final = 20  # digits of a DT down to the microsecond


class WrongValue(Exception):
    """The value of a key is none of its VR."""


def test_of(vr: str, value: str) -> Test | None:
    """The test that a key's value stands for; None for universal matching. Raises `WrongValue`."""
    value = value.strip(" \0")
    if not value.strip("*"):
        return None
    match vr:
        case "DA" | "TM" | "DT":
            return _any_of([_range(vr, part) for part in value.split("\\")])
        case "UI":
            return frozenset(part.strip(" \0") for part in value.split("\\")).__contains__
        case "PN":
            return _any_of([_name(part) for part in value.split("\\")])
        case _:
            return _any_of([_text(part.strip(" ")) for part in value.split("\\")])


def _any_of(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _text(pattern: str) -> Test:
    """Single value or wild card (C.2.2.2.1, C.2.2.2.4): * is any characters, ? is one."""
    if "*" not in pattern and "?" not in pattern:
        return pattern.__eq__
    first, *rest = pattern.split("*")
    if not rest:
        return _alike(first)
    *inner, last = rest
    middle = [_finder(part) for part in inner if part]
    starts, ends = _alike(first), _alike(last)

    def test(value: str) -> bool:
        at, end = len(first), len(value) - len(last)
        if at > end or not starts(value[:at]) or not ends(value[end:]):
            return False
        for find in middle:  # each part as early as it can be: what is left for the others is then the most
            at = find(value, at, end)
            if at < 0:
                return False
        return True

    return test


def _alike(pattern: str) -> Test:
    """A pattern without *, on the whole of a value."""
    if "?" not in pattern:
        return pattern.__eq__
    compiled = _one_by_one(pattern)
    return lambda value: compiled.fullmatch(value) is not None


def _finder(pattern: str) -> Callable[[str, int, int], int]:
    """Where the first place of `pattern` between two positions ends; -1 when there is none."""
    if "?" not in pattern:

        def find(value: str, at: int, end: int) -> int:
            found = value.find(pattern, at, end)
            return found if found < 0 else found + len(pattern)

        return find
    compiled = _one_by_one(pattern)

    def search(value: str, at: int, end: int) -> int:
        found = compiled.search(value, at, end)
        return -1 if found is None else found.end()

    return search


def _one_by_one(pattern: str) -> re.Pattern[str]:
    return re.compile("".join("." if c == "?" else re.escape(c) for c in pattern), re.DOTALL)


def _name(pattern: str) -> Test:
    """PN: the whole name or one of its groups; case, and delimiters at the end, count for nothing (PS3.5 6.2.1)."""
    test = _text(_plain(pattern))
    if "=" in pattern:
        return lambda value: test(_plain(value))
    return lambda value: any(test(_plain(group)) for group in value.split("="))


def _plain(name: str) -> str:
    return name.casefold().strip(" ").rstrip("^= ")


def _range(vr: str, value: str) -> Test:
    """DA, TM, DT: one, or a range with both its ends (C.2.2.2.5). What is less exact stands for all that it covers."""
    since, dash, until = _ends(vr, value.strip())
    if not dash:
        until = since

    def test(value: str) -> bool:
        digits = value.replace(".", "")
        if not digits:
            return False
        digits = digits.ljust(_EXACT, "0")
        return digits[: len(since)] >= since and (not until or digits[: len(until)] <= until)

    return test


def _ends(vr: str, value: str) -> tuple[str, str, str]:
    if vr == "DT":
        parts = _DATE_TIMES.fullmatch(value)
        if parts is None or not (parts["since"] or parts["until"]) or (parts["until"] and not parts["dash"]):
            raise WrongValue
        return _moment(parts["since"]), parts["dash"] or "", _moment(parts["until"])
    since, dash, until = (part.strip() for part in value.partition("-"))
    form = _DATE if vr == "DA" else _TIME
    for end in (since, until):
        if end and not form.fullmatch(end):
            raise WrongValue
    if not (since or until):
        raise WrongValue
    return _digits(since), dash, _digits(until)


def _moment(end: str | None) -> str:
    found = _DATE_TIME.fullmatch(end or "")  # its offset from UTC is not looked at: dates are local, as a modality's
    return _digits(found[1]) if found else ""


def _digits(text: str) -> str:
    return text.replace(".", "").replace(":", "")
