"""ER7, the vertical-bar encoding of HL7 v2 (v2.5.1 chapter 2): what a text, a field and a segment look like.

Whatever becomes a field goes through one of these functions, so that no text reaches a message unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Final, NamedTuple

from schemas.findings import Code
from schemas.identity import is_uid

# Table 0211, as far as one can choose, and Python's names. In each of them a byte below 0x80 is that ASCII character,
# so that no part of a letter is taken for a delimiter.
CODECS: Final[Mapping[str, str]] = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "ASCII": "ascii"}

_DELIMITERS: Final = "|^~\\&"  # MSH-1 and MSH-2, as section 2.5.4 suggests; escaped as in 2.7
_ESCAPES: Final = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
# A carriage return ends a segment, VT and FS a message, and readers that are generous with line ends know more of them.
_BREAKS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DELETE: Final = '""'  # a field of this is an order to delete what the receiver has, section 2.5.3
_DATE: Final = re.compile("[0-9]{8}")  # PS3.5 6.2, VR DA
_TIME: Final = re.compile("([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9]([.][0-9]{1,6})?)?")  # VR TM, with minutes


def segment(name: str, fields: Mapping[int, str]) -> str:
    """One segment, its carriage return included; `fields` are encoded, by their position."""
    if name == "MSH":  # MSH-1 is the delimiter itself
        fields = {position - 1: field for position, field in fields.items()} | {1: _DELIMITERS[1:]}
    values = [fields.get(position, "") for position in range(1, max(fields) + 1)]
    return "|".join([name, *values]).rstrip("|") + "\r"


def encode(segments: str, character_set: str) -> bytes:
    """A message in `character_set`, one of `CODECS`; what that cannot hold becomes a question mark."""
    return segments.encode(CODECS[character_set], "replace")


def text(value: str) -> str:
    """`value` as ST, TX or FT. Control characters and line ends become spaces."""
    plain = _BREAKS.sub(" ", value).strip()
    return "" if plain == _DELETE else plain.translate(_ESCAPES)


def components(*values: str) -> str:
    """A field of encoded components."""
    return "^".join(values).rstrip("^")


def subcomponents(*values: str) -> str:
    """A component of encoded subcomponents."""
    return "&".join(values).rstrip("&")


def coded(code: Code, alternate: Code | None = None) -> str:
    """CE or CWE; the designators of DICOM's coding schemes are those of table 0396."""
    both = [code] if alternate is None else [code, alternate]
    return components(*(text(part) for c in both for part in (c.value, c.meaning, c.scheme)))


def authority(name: str) -> tuple[str, str, str]:
    """The parts of an HD; a name that is an OID is one by itself, elsewhere it is local."""
    return ("", text(name), "ISO") if is_uid(name.strip()) else (text(name), "", "")


def moment(when: datetime) -> str:
    """An aware datetime as TS, to a tenth of a millisecond, in local time."""
    local = when.astimezone()
    return f"{local:%Y%m%d%H%M%S}.{local.microsecond // 100:04d}{local:%z}"[:24]


def dicom_date(value: str) -> str:
    """A DICOM date (DA) as DT; empty where it is none."""
    try:
        return value if _DATE.fullmatch(value) and date.fromisoformat(value) else ""
    except ValueError:  # 31 February
        return ""


def dicom_moment(day: str, time: str) -> str:
    """A DICOM date and time (DA, TM) as TS, as much of both as is well formed."""
    day = dicom_date(day)
    return day + time[:11] if day and _TIME.fullmatch(time) else day  # TS has four digits behind the second


class PersonName(NamedTuple):
    """One representation of a name: components as text of an encoded field."""

    representation: str  # table 0465: A alphabetic, I ideographic, P phonetic
    family: str
    given: str
    further: str
    prefix: str
    suffix: str


def person_names(value: str, character_set: str) -> list[PersonName]:
    """A DICOM person name (PN, PS3.5 6.2.1.2) by its component groups.

    A representation that `character_set` cannot hold is left out where there is another that it can.
    """
    codec = CODECS[character_set]
    names = []
    for representation, group in zip("AIP", value.split("="), strict=False):
        parts = [text(part) for part in group.split("^")]
        if any(parts):
            names.append(PersonName(representation, *(parts + 5 * [""])[:5]))
    held = [name for name in names if "".join(name).encode(codec, "replace").decode(codec) == "".join(name)]
    return held or names[:1]


def patient_name(value: str, character_set: str) -> str:
    """PID-5, XPN: the legal name in each of its representations; one that is not known is said to be so."""
    names = [
        components(subcomponents(n.family), n.given, n.further, n.suffix, n.prefix, "", "L", n.representation)
        for n in person_names(value, character_set)
    ]
    return "~".join(names) or components("", "", "", "", "", "", "U")  # table 0200: unspecified


def provider_name(value: str, character_set: str) -> str:
    """XCN of a person who is known by name alone; empty without one."""
    return "~".join(
        components("", n.family, n.given, n.further, n.suffix, n.prefix, "", "", "", "L", *4 * [""], n.representation)
        for n in person_names(value, character_set)
    )
