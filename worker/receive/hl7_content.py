"""What an HL7 v2 message says of orders, patients and reports.

| message | becomes |
|---|---|
| ORM^O01, OMG^O19, OMI^O23 | an `Order` for each ORC |
| ADT^A08, A31 | a `PatientUpdate` |
| ADT^A18, A40, A47 | a `PatientUpdate` and a `Merge` for each MRG-1 |
| ORU^R01 | a `SignedReport` for each study with an OBR-25 of F or C |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal, TypeAlias

from schemas.context import Content, Merge, Order, PatientRef, PatientUpdate, SignedReport
from schemas.decision import Urgency
from schemas.errors import MessageRefused
from schemas.identity import is_uid
from worker.receive.hl7_in import Message, Segment, check, moment
from worker.receive.report_verdict import STUDY_UID, VerdictRules, is_own, verdict_of

AccessionIn: TypeAlias = Literal["IPC-1", "OBR-18", "OBR-3", "ORC-3", "OBR-2", "ORC-2"]

_LONGEST_ID: Final = 250  # characters; cut off it would be another's
_LONGEST_REASON: Final = 1000
_LONGEST_NAME: Final = 64  # of each component group, PS3.5 6.2, VR PN
# A message is recorded in one step, in which nobody else's is: so much of it there may be, and more is refused whole.
_MOST_GROUPS: Final = 200  # orders or reports, PID or MRG segments
_MOST_IDENTIFIERS: Final = 1000  # of patients in all
_MOST_OF_ONE: Final = 50  # identifiers of one patient
_MOST_CORRECTIONS: Final = 4  # of one identifier; each may change, and tell again, all that is filed under it

_ORDERS: Final = frozenset({("ORM", "O01"), ("OMG", "O19"), ("OMI", "O23")})
_UPDATES: Final = frozenset({("ADT", "A08"), ("ADT", "A31")})
_MERGES: Final = frozenset({("ADT", "A18"), ("ADT", "A40"), ("ADT", "A47")})
_REPORT: Final = ("ORU", "R01")
_CODES: Final = frozenset({code for code, _ in _ORDERS | _UPDATES | _MERGES | {_REPORT}})

_CANCELS: Final = frozenset({"CA", "CR", "DC", "DR", "OC", "OD"})  # ORC-1, table 0119
_CANCELLED: Final = frozenset({"CA", "DC"})  # ORC-5, table 0038
_SIGNED: Final = frozenset({"F", "C"})  # OBR-25, table 0123
# Tables 0027 and 0485, and the words that senders write instead. Preoperative (P), callback (C) and timing critical (T
# and its kin) are more than routine.
_PRIORITIES: Final[Mapping[str, Urgency]] = {
    **dict.fromkeys(("S", "STAT"), Urgency.STAT),
    **dict.fromkeys(("A", "ASAP", "P", "C", "URGENT", "HIGH"), Urgency.URGENT),
    **dict.fromkeys(("R", "ROUTINE", "PRN", "PR"), Urgency.ROUTINE),
}
_TIMING_CRITICAL: Final = re.compile("T([SMHDWL][0-9]{0,6})?")
_IN_NAMES: Final = re.compile("[\x00-\x1f\x7f-\x9f^=\\\\]")
_DATE: Final = re.compile("[0-9]{8}")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the site says of its messages."""

    processing_id: str = "P"
    accession_in: Sequence[AccessionIn] = ("IPC-1", "OBR-18", "OBR-3", "ORC-3")
    own_applications: frozenset[str] = frozenset({"HILUM"})  # MSH-3 of what we send ourselves
    verdicts: VerdictRules = field(default_factory=VerdictRules)


@dataclass
class _Group:
    """An order with what belongs to it, or a result with its observations."""

    patient: Segment | None
    parts: dict[str, Segment] = field(default_factory=dict)  # the first of each name
    observations: list[Segment] = field(default_factory=list)

    def text(self, name: str, position: int, component: int = 1) -> str:
        return self.parts[name].text(position, component) if name in self.parts else ""


def understand(message: Message, rules: Rules, now: datetime) -> tuple[Content, ...]:
    """What the message says; nothing where it is ours, come back. Raises `MessageRefused`."""
    check(message, rules.processing_id)
    kind = message.kind
    if kind[0] not in _CODES:
        raise MessageRefused("200", "messages of this type are not taken here", "MSH^1^9")
    if kind not in _ORDERS | _UPDATES | _MERGES | {_REPORT}:
        raise MessageRefused("201", "messages of this trigger event are not taken here", "MSH^1^9")
    if message.header.text(3) in rules.own_applications:
        return ()
    said_at = _said_at(message, now)
    if kind in _ORDERS:
        return tuple(_bounded(_orders(message, rules, said_at)))
    if kind == _REPORT:
        return tuple(_bounded(_reports(message, rules, said_at)))
    return tuple(_bounded(_patients(message, said_at, merges=kind in _MERGES)))


def _bounded(contents: Iterable[Content]) -> Iterator[Content]:
    """The same. Raises `MessageRefused` where they name too many patients, or one too often."""
    named = 0
    corrected: Counter[PatientRef] = Counter()
    for content in contents:
        match content:
            case Order():
                named += 1
            case SignedReport():
                named += len(content.patients)
            case PatientUpdate():
                named += len(content.patients)
                corrected.update(content.patients)
            case Merge():
                named += 2
                corrected[content.old] += 1
        if named > _MOST_IDENTIFIERS:
            raise MessageRefused("104", "the message names too many patients")
        if max(corrected.values(), default=0) > _MOST_CORRECTIONS:
            raise MessageRefused("104", "the message corrects a patient too often")
        yield content


def _said_at(message: Message, now: datetime) -> datetime:
    """EVN-2, else MSH-7. Never later than now: a clock that is ahead would keep every correction out."""
    event = next((segment for segment in message.segments() if segment.name == "EVN"), None)
    said = None if event is None else moment(event.text(2))
    return min(said or moment(message.header.text(7)) or now, now)


def _orders(message: Message, rules: Rules, said_at: datetime) -> Iterator[Order]:
    groups = _groups(message, "ORC")
    if not groups:
        raise MessageRefused("101", "an order has an ORC segment", "ORC^1")
    for group in groups:
        order = Order(
            accession_number=_identifier(_accession(group, rules), "OBR^1^18"),
            placer_number=_identifier(group.text("ORC", 2) or group.text("OBR", 2), "ORC^1^2"),
            filler_number=_identifier(group.text("ORC", 3) or group.text("OBR", 3), "ORC^1^3"),
            urgency=_urgency(group),
            cancelled=group.text("ORC", 1) in _CANCELS or group.text("ORC", 5) in _CANCELLED,
            reason=_reason(group),
            patient_id=next((patient.id for patient, _ in _identifiers(group.patient, 3)), ""),
            said_at=said_at,
        )
        if not (order.accession_number or order.placer_number or order.filler_number):
            raise MessageRefused("101", "an order has a number", "ORC^1^2")
        yield order


def _urgency(group: _Group) -> Urgency | None:
    """The highest priority that is named; None where none is."""
    places = (("OBR", 27, 6), ("ORC", 7, 6), ("TQ1", 9, 1), ("OBR", 5, 1))
    named = [
        segment.part(repetition, component).upper()
        for name, position, component in places
        for segment in [group.parts.get(name)]
        if segment is not None
        for repetition in segment.repetitions(position)
    ]
    known = [_PRIORITIES.get(word, Urgency.URGENT if _TIMING_CRITICAL.fullmatch(word) else None) for word in named]
    return max((urgency for urgency in known if urgency is not None), default=None)


def _reason(group: _Group) -> str:
    """OBR-31, else OBR-13: the words, or the code where there are none."""
    obr = group.parts.get("OBR")
    coded = [] if obr is None else [obr.part(r, 2) or obr.part(r, 1) for r in obr.repetitions(31)]
    return ("; ".join(filter(None, coded)) or group.text("OBR", 13))[:_LONGEST_REASON]


def _patients(message: Message, said_at: datetime, *, merges: bool) -> Iterator[Content]:
    """The corrected patient first, so that what is merged into it is told once and rightly."""
    patient: Segment | None = None
    said: dict[tuple[PatientRef, ...], PatientUpdate] = {}
    heard: Counter[str] = Counter()
    for segment in message.segments():
        if segment.name in ("PID", "MRG"):
            heard[segment.name] += 1
            if heard[segment.name] > _MOST_GROUPS:
                raise MessageRefused("104", "the message names too many patients")
        if segment.name == "PID":
            patient = segment
            refs = _refs(patient, 3) or _refs(patient, 2)
            if not refs:
                raise MessageRefused("101", "a patient has an identifier in PID-3", "PID^1^3")
            corrected = PatientUpdate(
                patients=refs,
                name=_name(patient, 5),
                birth_date=_birth_date(patient.text(7)),
                sex=patient.text(8) if patient.text(8) in {"M", "F", "O"} else "",
                said_at=said_at,
            )
            if said.get(refs) != corrected:  # a patient that several are merged into stands before each of them
                yield corrected
            said[refs] = corrected
        elif segment.name == "MRG" and merges and patient is not None:
            yield from _merged(patient, segment, said_at)
    if patient is None:
        raise MessageRefused("101", "the message has a PID segment", "PID^1")


def _merged(patient: Segment, merged: Segment, said_at: datetime) -> Iterator[Merge]:
    """Each identifier of MRG-1 goes to that of PID-3 which is of its issuer and type, as far as both name them.

    A hospital number is never merged into a social security number: one without its like stays as it is.
    """
    new = list(_identifiers(patient, 3))
    found = False
    for ref, kind in _identifiers(merged, 1):
        like = [
            (other.issuer == ref.issuer, other_kind == kind, other)
            for other, other_kind in new
            if (other.issuer == ref.issuer or not other.issuer or not ref.issuer)
            and (other_kind == kind or not other_kind or not kind)
        ]
        if like:
            found = True
            to = max(like, key=lambda candidate: candidate[:2])[2]
            if to != ref:
                yield Merge(old=ref, new=to, said_at=said_at)
    if not found:
        raise MessageRefused("101", "PID-3 has no identifier of the issuer and type of MRG-1", "MRG^1^1")


def _reports(message: Message, rules: Rules, said_at: datetime) -> Iterator[SignedReport]:
    """One for each study: what was ordered under several codes is often reported once, in several OBR."""
    by_study: dict[tuple[str, str], list[_Group]] = {}
    for group in _groups(message, "OBR"):
        theirs = [observation for observation in group.observations if not is_own(observation)]
        only_ours = bool(group.observations) and not theirs
        if group.text("OBR", 25) in _SIGNED and not only_ours:
            by_study.setdefault((_study_uid(group), _accession(group, rules)), []).append(group)
    for (study_uid, accession), groups in by_study.items():
        if not study_uid and not accession:
            continue
        said = verdict_of([observation for group in groups for observation in group.observations], rules.verdicts)
        first = groups[0]
        yield SignedReport(
            accession_number=_identifier(accession, "OBR^1^18"),
            study_uid=study_uid,
            patients=_refs(first.patient, 3),
            report_id=_identifier(first.text("OBR", 3) or first.text("ORC", 3), "OBR^1^3"),
            corrected=any(group.text("OBR", 25) == "C" for group in groups),
            verdict=said.verdict,
            rule=said.rule,
            findings=said.findings,
            said_at=said_at,
        )


def _groups(message: Message, leader: str) -> list[_Group]:
    """The message by its orders: a new one begins with each `leader`, and with whatever may only stand once in one."""
    groups: list[_Group] = []
    patient: Segment | None = None
    order: Segment | None = None
    for segment in message.segments():
        if segment.name == "PID":
            patient, order = segment, None
        elif segment.name == "ORC" and leader != "ORC":
            order = segment  # of the result that follows
        elif segment.name == leader:
            group = _Group(patient)
            group.parts = {leader: segment} if order is None else {"ORC": order, leader: segment}
            groups.append(group)
            order = None
            if len(groups) > _MOST_GROUPS:
                raise MessageRefused("104", "the message has too many orders")
        elif groups and segment.name == "OBX":
            groups[-1].observations.append(segment)
        elif groups:
            groups[-1].parts.setdefault(segment.name, segment)
    return groups


def _accession(group: _Group, rules: Rules) -> str:
    """The first of the fields that hold it that is not empty."""
    places = (place.split("-") for place in rules.accession_in)
    return next(filter(None, (group.text(name, int(position)) for name, position in places)), "")


def _study_uid(group: _Group) -> str:
    """As IHE has it (ZDS-1, IPC-3), or as an observation."""
    observed = [o.text(5) for o in group.observations if o.text(3) == STUDY_UID]
    uids = (group.text("ZDS", 1), group.text("IPC", 3), *observed)
    return next((uid for uid in uids if is_uid(uid, lenient=True)), "")


def _refs(segment: Segment | None, position: int) -> tuple[PatientRef, ...]:
    return tuple(ref for ref, _ in _identifiers(segment, position))


def _identifiers(segment: Segment | None, position: int) -> Iterator[tuple[PatientRef, str]]:
    """The patient that each CX of a field names, by its authority's name or else by its universal id, and the type.

    Whoever only wants the first is not told that there are too many. Raises `MessageRefused`: what is left out would
    stay as it was.
    """
    if segment is None:
        return
    for cx in segment.repetitions(position):
        identifier = _identifier(segment.part(cx, 1), f"{segment.name}^1")
        namespace, *universal = segment.subcomponents(cx, 4)
        issuer = _identifier(namespace or "".join(universal[:1]), f"{segment.name}^1")
        if identifier:
            yield PatientRef(id=identifier, issuer=issuer), segment.part(cx, 5)
    if segment.count(position) > _MOST_OF_ONE:
        raise MessageRefused("104", "a patient has too many identifiers", f"{segment.name}^1^{position}")


def _identifier(value: str, location: str) -> str:
    """An identifier as a key. Raises `MessageRefused`: one that is too long or damaged is somebody else's."""
    if len(value) > _LONGEST_ID:
        raise MessageRefused("104", "an identifier is too long", location)
    if "\N{REPLACEMENT CHARACTER}" in value or "\0" in value:
        raise MessageRefused("102", "an identifier has bytes that are not of the message's character set", location)
    return value


def _name(segment: Segment, position: int) -> str:
    """XPN as PN (PS3.5 6.2.1): the legal name in each of its representations; empty where it is damaged or none."""
    names = list(segment.repetitions(position))
    kind = "L" if any(segment.part(name, 7) == "L" for name in names) else ""
    groups = {"A": "", "I": "", "P": ""}
    for name in names:
        representation = segment.part(name, 8) or "A"
        if (not kind or segment.part(name, 7) == kind) and groups.get(representation) == "":
            family, given, further, suffix, prefix = (
                _IN_NAMES.sub(" ", segment.part(name, component)).strip() for component in range(1, 6)
            )
            groups[representation] = "^".join((family, given, further, prefix, suffix)).rstrip("^")
    if any(len(group) > _LONGEST_NAME or "\N{REPLACEMENT CHARACTER}" in group for group in groups.values()):
        return ""
    return "=".join(groups.values()).rstrip("=")


def _birth_date(value: str) -> str:
    day = value[:8]
    try:
        return day if _DATE.fullmatch(day) and date.fromisoformat(day) else ""
    except ValueError:  # 31 February
        return ""
