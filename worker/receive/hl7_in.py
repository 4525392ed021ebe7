"""An HL7 v2 message as it comes in: its segments, who sent it, and the acknowledgement that goes back.

HL7 v2.5.1 chapter 2: delimiters (2.5.4), escapes (2.7), character sets (table 0211), acknowledgements (2.9).
Nothing in here trusts the sender: a segment is split a bounded number of times, and only when it is asked for.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.context import MessageId
from schemas.errors import MessageRefused

_MOST_SEGMENTS: Final = 20_000
_MOST_FIELDS: Final = 64
_MOST_PARTS: Final = 64  # repetitions of a field, components of a repetition
_LONGEST_PART: Final = 4096  # of a component; far more than any that is of use
_LONGEST_ID: Final = 199  # MSH-10, as many characters as later versions allow
_LONGEST_ECHO: Final = 227  # of a field that the answer repeats: HD, as long as the standard has it

# Table 0211. A sender that names none means ASCII, and often sends what its system has: see `_decode`.
CODECS: Final[Mapping[str, str]] = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
# What the character sets of one byte make of each; Python's own way around a byte that is none takes far longer.
_ONE_BYTE: Final = {
    codec: bytes(range(256)).decode(codec, "replace") for codec in CODECS.values() if codec.startswith("iso8859")
}
_VERSION: Final = re.compile(r"2\.[1-9](\.[0-9])?")
_TIME: Final = re.compile(
    "([0-9]{4})([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?([.][0-9]{1,6})?([+-][0-9]{4})?"
)
_BEFORE: Final = b"\xef\xbb\xbf \t\r\n"  # what careless senders put before MSH
_LINE_ENDS: Final = re.compile("[\r\n]+")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
# 2.7.1 and 2.7.6: the delimiter of this place in `Delimiters`, or what there is to read.
_ESCAPED: Final[Mapping[str, int | str]] = {
    "F": 0,
    "S": 1,
    "R": 2,
    "E": 3,
    "T": 4,
    "H": "",
    "N": "",
    ".br": "\n",
    ".sp": "\n",
    ".ce": "\n",
}


class Delimiters(NamedTuple):
    """MSH-1 and MSH-2."""

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str


class Answer(StrEnum):
    """The second letter of MSA-1 (table 0008)."""

    ACCEPT = "A"  # it is on the disk
    ERROR = "E"  # a passing fault: send it again
    REJECT = "R"  # as it is it will never be taken


class Segment:
    """One segment. Fields are counted from 1, as the standard does."""

    def __init__(self, fields: list[str], delimiters: Delimiters, codec: str) -> None:
        self.name = fields[0]
        self._fields = fields
        self._delimiters = delimiters
        self._codec = codec

    def raw(self, field: int) -> str:
        """A field as it stands there; empty where there is none. Two quotes mean "none" and are read so."""
        value = self._fields[field] if field < len(self._fields) else ""
        return "" if value == '""' else value

    def repetitions(self, field: int) -> Iterator[list[str]]:
        """The components of each repetition that is not empty, still escaped."""
        for repetition in self.raw(field).split(self._delimiters.repetition, _MOST_PARTS)[:_MOST_PARTS]:
            if repetition not in ("", '""'):
                yield repetition.split(self._delimiters.component, _MOST_PARTS)

    def count(self, field: int) -> int:
        """How many repetitions a field has, those among them that are empty or too many to look at."""
        return self.raw(field).count(self._delimiters.repetition) + 1

    def text(self, field: int, component: int = 1) -> str:
        """A component of the field's first repetition, or its first subcomponent, as a person would read it."""
        first = next(self.repetitions(field), [])
        return self.part(first, component)

    def part(self, components: list[str], component: int) -> str:
        """A component, or its first subcomponent, out of what `repetitions` gives."""
        return next(iter(self.subcomponents(components, component)), "")

    def subcomponents(self, components: list[str], component: int) -> list[str]:
        """All subcomponents of a component out of what `repetitions` gives."""
        value = components[component - 1][:_LONGEST_PART] if component <= len(components) else ""
        parts = value.split(self._delimiters.subcomponent, _MOST_PARTS)
        return ["" if part == '""' else self.unescape(part).strip() for part in parts]

    def unescape(self, value: str) -> str:
        """Without escape sequences (2.7). What is none, such as a lone backslash, stays."""
        escape = self._delimiters.escape
        if escape not in value:
            return value
        parts = value.split(escape)
        said, index = [parts[0]], 1
        while index < len(parts):
            meant = self._meaning(parts[index]) if index + 1 < len(parts) else None
            if meant is None:
                said += (escape, parts[index])
                index += 1
            else:
                said += (meant, parts[index + 1])
                index += 2
        return "".join(said)

    def _meaning(self, sequence: str) -> str | None:
        if sequence in _ESCAPED:
            meant = _ESCAPED[sequence]
            return self._delimiters[meant] if isinstance(meant, int) else meant
        if sequence[:1] == "X":
            try:
                return bytes.fromhex(sequence[1:]).decode(self._codec, "replace")
            except ValueError:
                return None
        # Other formatting commands, and changes of the character set inside of a text: nothing to read.
        return " " if re.fullmatch(r"\.[a-z]{2}[+-]?[0-9]{0,4}|[CMZ][0-9A-Za-z]{1,16}", sequence) else None


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message whose header could be read."""

    header: Segment
    lines: list[str]
    delimiters: Delimiters
    codec: str | None  # None: a character set that is not known here
    digest: str

    @property
    def kind(self) -> tuple[str, str]:
        """Message code and trigger event (MSH-9)."""
        return self.header.text(9, 1), self.header.text(9, 2)

    @property
    def id(self) -> MessageId:
        """By what it is known again."""
        sender = f"{self.header.raw(3)}{self.delimiters.field}{self.header.raw(4)}"
        return MessageId(sender=sender, control_id=self.header.raw(10), digest=self.digest)

    def segments(self) -> Iterator[Segment]:
        """After the header, in order."""
        for line in self.lines:
            yield Segment(line.split(self.delimiters.field, _MOST_FIELDS), self.delimiters, self.codec or "ascii")


def open_message(block: bytes) -> Message:
    """The message that `block` is. Raises `MessageRefused` where it has no header that could be answered."""
    plain = block.lstrip(_BEFORE)
    if not plain.startswith(b"MSH") or len(plain) < 9:
        raise MessageRefused("100", "a message begins with MSH and its delimiters", "MSH^1")
    head = re.split(rb"[\r\n]", plain[:65536], maxsplit=1)[0].decode("latin-1")
    delimiters = _delimiters(head)
    named = next(Segment(_header_fields(head, delimiters), delimiters, "ascii").repetitions(18), [""])[0].strip()
    text, codec = _decode(plain, named)
    lines = [line for line in _LINE_ENDS.split(text, _MOST_SEGMENTS) if line]
    header = Segment(_header_fields(lines[0], delimiters), delimiters, codec or "ascii")
    return Message(
        header=header,
        lines=lines[1:],
        delimiters=delimiters,
        codec=codec,
        digest=hashlib.sha256(plain).hexdigest(),
    )


def check(message: Message, processing_id: str) -> None:
    """Whether a message may be looked at: its header is whole, and means us. Raises `MessageRefused`."""
    header = message.header
    if message.codec is None:
        raise MessageRefused("103", "the character set of MSH-18 is not known here", "MSH^1^18")
    if not _VERSION.fullmatch(header.text(12)):
        raise MessageRefused("203", "the version of MSH-12 is none of HL7 v2", "MSH^1^12")
    if header.text(11) != processing_id:
        raise MessageRefused("202", "the processing ID of MSH-11 is not the one that is taken here", "MSH^1^11")
    if not header.raw(10):
        raise MessageRefused("101", "a message has a control ID in MSH-10", "MSH^1^10")
    if len(header.raw(10)) > _LONGEST_ID or len(message.id.sender) > 2 * _LONGEST_ECHO:
        raise MessageRefused("104", "MSH-3, MSH-4 or MSH-10 is too long", "MSH^1^10")
    if len(message.lines) >= _MOST_SEGMENTS:
        raise MessageRefused("104", "the message has too many segments")


def refuse(beginning: bytes, refusal: MessageRefused, now: datetime) -> bytes:
    """The answer to a message of which only the beginning is here: by its header, as far as there is one."""
    try:
        message = open_message(re.split(rb"[\r\n]", beginning.lstrip(_BEFORE), maxsplit=1)[0])
    except MessageRefused:
        message = None
    return acknowledge(message, Answer.REJECT, now, refusal)


def acknowledge(message: Message | None, answer: Answer, now: datetime, refusal: MessageRefused | None = None) -> bytes:
    """The acknowledgement, in the message's own delimiters and character set; empty where its sender wants none.

    Original mode (2.9.2): AA, AE, AR. Enhanced mode (2.9.3), where MSH-15 or MSH-16 is valued: CA, CE, CR where the
    sender asks for an accept acknowledgement, else the application's. What is accepted is on the disk, so both mean the
    same here. ERR is as the message's version has it (2.15.5): before v2.5 the code is a component of ERR-1, and the
    words of the refusal stand in MSA-3 instead of ERR-8.
    """
    wanted = [message.header.text(field) for field in (15, 16)] if message is not None else ["", ""]
    kind = "A"
    if any(wanted):
        kinds = [kind for kind, when in zip("CA", wanted, strict=True) if _is_wanted(when, answer)]
        if not kinds:
            return b""
        kind = kinds[0]
    delimiters = message.delimiters if message is not None else Delimiters("|", "^", "~", "\\", "&")
    field, component, _, _, subcomponent = delimiters

    def echo(position: int, default: str = "") -> str:
        value = "" if message is None else message.header.raw(position)
        return _CONTROL.sub("", value[:_LONGEST_ECHO]) or default

    version = "" if message is None else message.header.text(12)
    version = version if _VERSION.fullmatch(version) else "2.5.1"
    trigger = echo(9).split(component)[1:2]
    number = hashlib.sha256(f"{'' if message is None else message.digest}{kind}{answer}".encode()).hexdigest()[:20]
    header = [
        "MSH",
        delimiters.component + delimiters.repetition + delimiters.escape + delimiters.subcomponent,
        echo(5, "HILUM"),
        echo(6),
        echo(3),
        echo(4),
        f"{now.astimezone():%Y%m%d%H%M%S%z}",
        "",
        component.join(["ACK", *trigger]),
        number,
        echo(11, "P"),
        version,
    ]
    segments = [header, ["MSA", kind + answer, echo(10)]]
    condition = "207" if answer is Answer.ERROR else refusal.condition if refusal is not None else ""
    words = [] if refusal is None else [_escaped(str(refusal), delimiters)]
    if condition and tuple(map(int, version.split(".")[:2])) >= (2, 5):
        location = "" if refusal is None else refusal.location.replace("^", component)
        code = component.join((condition, _CONDITIONS[condition], "HL70357"))
        segments.append(["ERR", "", location, code, "E", *([*3 * [""], *words] if words else [])])
    elif condition:
        segments[1] += words
        segments.append(["ERR", 3 * component + subcomponent.join((condition, _CONDITIONS[condition], "HL70357"))])
    text = "".join(field.join(segment) + "\r" for segment in segments)
    return text.encode((message.codec if message is not None else None) or "ascii", "replace")


def _escaped(text: str, delimiters: Delimiters) -> str:
    """Our own words as a value (2.7.1)."""
    escape = delimiters.escape
    return text.translate({ord(d): f"{escape}{name}{escape}" for d, name in zip(delimiters, "FSRET", strict=True)})


_CONDITIONS: Final[Mapping[str, str]] = {  # table 0357
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "104": "Value too long",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "207": "Application internal error",
}


def moment(value: str) -> datetime | None:
    """A TS or DTM in UTC, as exact as it is; local time where it names no zone. None where it is none."""
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    micro = int((fraction or ".0")[1:].ljust(6, "0"))
    parts = (int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), micro)
    try:
        if zone is None:
            return datetime(*parts).astimezone(UTC)  # local by its definition
        return datetime(*parts, tzinfo=datetime.strptime(zone, "%z").tzinfo).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_wanted(when: str, answer: Answer) -> bool:
    """Table 0155."""
    return when == "AL" or (when == "SU" and answer is Answer.ACCEPT) or (when == "ER" and answer is not Answer.ACCEPT)


def _delimiters(head: str) -> Delimiters:
    """Out of MSH-1 and MSH-2. v2.7 has a sixth, for what was cut off. Raises `MessageRefused`."""
    if len(set(head[3:8])) < len(Delimiters._fields) or any(
        not c.isascii() or c.isalnum() or not c.isprintable() for c in head[3:8]
    ):
        raise MessageRefused("102", "MSH-1 and MSH-2 are no five different delimiters", "MSH^1^1")
    found = Delimiters(*head[3:8])
    if head[8:9] != found.field and head[9:10] != found.field:
        raise MessageRefused("102", "MSH-2 has four characters, or five", "MSH^1^2")
    return found


def _header_fields(line: str, delimiters: Delimiters) -> list[str]:
    """MSH with MSH-1, the delimiter itself, in its place."""
    name, *rest = line.split(delimiters.field, _MOST_FIELDS)
    return [name, delimiters.field, *rest]


def _decode(plain: bytes, named: str) -> tuple[str, str | None]:
    """Text and codec; bytes that are not of the character set become U+FFFD. No codec: it is not known here.

    Where none is named it is UTF-8 if it can be, else ISO 8859-1: whoever sends more than ASCII then sends one of them.
    """
    if not named or named == "ASCII":
        try:
            return plain.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            return plain.decode("latin-1"), "latin-1"
    codec = CODECS.get(named.upper())
    if codec in _ONE_BYTE:
        return codecs.charmap_decode(plain, "strict", _ONE_BYTE[codec])[0], codec
    return plain.decode(codec or "latin-1", "replace"), codec
