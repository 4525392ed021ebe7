"""What the acknowledgement of an HL7 v2 message means: delivered, try again, or a person must act.

HL7 v2.5.1 2.9.2 (original mode), 2.15.8 (MSA), 2.15.5 (ERR). Of what the receiver says only codes are repeated: its
texts may hold the patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import PermanentFailure, TransientFailure

_CODE: Final = re.compile("[AC][AER]")  # MSA-1, table 0008
_CONDITION: Final = re.compile("[0-9]{1,3}")  # table 0357
_LONGEST_ID: Final = 199  # characters of MSA-2 that are looked at, as many as later versions allow

# Table 0357: conditions that the same message will meet again, and those that pass.
_LASTING: Final[Mapping[str, str]] = {
    "100": "it expects segments in another order",
    "101": "a field that it requires is missing",
    "102": "a field is not of the type that it expects",
    "103": "it does not know a code",
    "104": "a value is too long for it",
    "198": "it expects another number of repetitions",
    "199": "the message is not formed as it expects",
    "200": "it does not take this type of message: have it enabled there, or choose the other",
    "201": "it does not take this trigger event: have it enabled there, or choose the other",
    "202": "it does not take this processing ID: mend processing_id of this destination",
    "203": "it does not take this version of HL7",
    "204": "it does not know the patient or the order",
    "205": "it has a message or an order of this number already",
}
_PASSING: Final[Mapping[str, str]] = {"206": "a record is locked there", "207": "it has an internal error"}


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """MSA and ERR, as far as they are codes."""

    code: str  # MSA-1: AA, AE, AR, or CA, CE, CR
    control_id: str  # MSA-2: of the message that is answered
    conditions: tuple[str, ...] = ()  # of the ERR segments that are errors, table 0357

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message."""
        return self.code.endswith("A")

    def __str__(self) -> str:
        return " ".join(["ACK", self.code, *self.conditions])


def parse_ack(block: bytes) -> Acknowledgement | None:
    """The acknowledgement that `block` is, or None. Whatever its character set: its codes are ASCII in all of them."""
    segments = block.decode("latin-1").lstrip("\xef\xbb\xbf \t\r\n").replace("\n", "\r").split("\r")
    if not segments[0].startswith("MSH") or len(segments[0]) < 8:
        return None
    field, component, repetition, _, subcomponent = tuple(segments[0][3:8])
    rows = [segment.split(field) for segment in segments[1:]]
    acknowledgement = next((row for row in rows if row[0] == "MSA"), None)
    if acknowledgement is None or not _CODE.fullmatch(_get(acknowledgement, 1)):
        return None
    conditions = [_first(_get(acknowledgement, 6), component)]  # MSA-6, before v2.4
    for row in rows:
        if row[0] != "ERR" or _get(row, 4) in {"W", "I"}:  # warnings, information: table 0516
            continue
        if _is_condition(_get(row, 3).split(component)):
            conditions.append(_first(_get(row, 3), component))
        for location in _get(row, 1).split(repetition):  # ERR-1, ELD, before v2.5: its fourth component is the code
            conditions.append(_first(_get(location.split(component), 3), subcomponent))
    return Acknowledgement(
        code=_get(acknowledgement, 1),
        control_id=_get(acknowledgement, 2)[:_LONGEST_ID],
        conditions=tuple(dict.fromkeys(c for c in conditions if _CONDITION.fullmatch(c) and c != "0")),
    )


def proof(ack: Acknowledgement, peer: object, *, sent_before: bool) -> str:
    """What `ack` says of the delivery; `sent_before` is whether an earlier attempt may have arrived unanswered.

    Raises
    ------
    TransientFailure
        AE and CE, unless a condition says that it is lasting.
    PermanentFailure
        AR and CR, unless the only conditions are passing ones.
    """
    said = f"{ack} {ack.control_id}"
    if ack.accepted:
        return said
    if "205" in ack.conditions and sent_before:
        return f"{said}, it was there already"
    lasting = [_LASTING[condition] for condition in ack.conditions if condition in _LASTING]
    passing = [_PASSING[condition] for condition in ack.conditions if condition in _PASSING]
    if lasting:
        raise PermanentFailure(f"{peer} refuses the message ({ack}): {'; '.join(lasting)}; mend it there, then replay")
    if passing:
        raise TransientFailure(f"{peer} failed to process the message ({ack}): {'; '.join(passing)}; look at its log")
    if ack.code.endswith("R"):
        raise PermanentFailure(f"{peer} rejects the message ({ack}): its log says why; mend it there, then replay")
    raise TransientFailure(f"{peer} failed to process the message ({ack}): look at its log")


def _get(row: list[str], index: int) -> str:
    return row[index].strip() if index < len(row) else ""


def _first(value: str, separator: str) -> str:
    return value.partition(separator)[0].strip()


def _is_condition(coded: list[str]) -> bool:
    """Whether a CWE is of table 0357, or does not say of which: a table of the site's own may use the same numbers."""
    return _get(coded, 2) in {"", "HL70357"}
