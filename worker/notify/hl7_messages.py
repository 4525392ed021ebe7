"""A flag as an HL7 v2.5.1 message: the result (ORU^R01), or the order with another priority (OMI^O23, ORM^O01).

Where an order number is wanted the accession number stands: of a film's identifiers it is the one that the department
gave to the order. It is the filler order number (ORC-3, OBR-3), and it stands in OBR-18 and IPC-1, where IHE has it
(transactions RAD-4, RAD-13, RAD-128). The placer's own number no film carries. A study without an accession number goes
by its Study Instance UID, so that results of two such studies never meet.

A study that hilum left in its standing order changes no priority (OBR-27 and TQ1-9 are empty): its order may be urgent
already, and hilum only raises. A flag that is withdrawn takes it back to routine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from schemas.decision import Reason, Urgency
from schemas.findings import Code
from schemas.flag import Flag, Withdrawal
from worker import __version__
from worker.notify.codes import CHEST_FILM, PRIORITY, URGENCY, finding_code
from worker.notify.hl7_er7 import (
    authority,
    coded,
    components,
    dicom_date,
    dicom_moment,
    encode,
    moment,
    patient_name,
    provider_name,
    segment,
    subcomponents,
    text,
)
from worker.notify.uids import derive_uid
from worker.notify.wording import sentences

PriorityIn: TypeAlias = Literal["OBR-27", "TQ1-9", "both"]
OrderMessage: TypeAlias = Literal["OMI^O23", "ORM^O01"]

# Tables 0027 (OBR-27) and 0485 (TQ1-9), which agree in these.
_PRIORITY: Final = {
    Urgency.STAT: Code("S", "HL70485", "Stat"),
    Urgency.URGENT: Code("A", "HL70485", "ASAP"),
    Urgency.ROUTINE: Code("R", "HL70485", "Routine"),
}
_SERVICE: Final = Code("30745-4", "LN", "XR Chest Views")
_COMMENT: Final = Code("48767-8", "LN", "Annotation comment"), Code("121106", "DCM", "Comment")
_STUDY: Final = Code("113014", "DCM", "DICOM Study")
_FINDING: Final = Code("121071", "DCM", "Finding")
_PROBABILITY: Final = Code("111047", "DCM", "Probability")
_NO_UNITS: Final = Code("1", "UCUM", "no units")
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUV"

# OBR-25, OBX-11 (tables 0123, 0085). Every revision is preliminary: "corrected" would replace a final result, and
# whoever reads that of a study takes it for reported.
_PRELIMINARY: Final = "P"
_DESCRIPTION: Final = "O"  # of the order, no result
# OBX-11 of what was found before (table 0085): W, posted as wrong; D, deleted, where it was not wrong. Neither is said
# of OBR-25, whose X is a cancelled order: the films are still to be read.
_WITHDRAWN: Final = {
    Withdrawal.PERSON: "W",
    Withdrawal.PATIENT: "W",
    Withdrawal.MODEL: "W",
    Withdrawal.REPORTED: "D",
}


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What the header says of both ends; names may be of the form `name^universal id^type` (HD)."""

    sending_application: str = "HILUM"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    processing_id: str = "P"
    character_set: str = "UNICODE UTF-8"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as it goes over the wire, and the control ID by which its acknowledgement names it."""

    control_id: str  # MSH-10
    encoded: bytes


def build_oru(flag: Flag, envelope: Envelope, priority_in: PriorityIn = "both") -> Message:
    """ORU^R01: the result. Equal flags give equal messages, byte for byte, in one time zone."""
    in_obr, in_tq1 = priority_in != "TQ1-9", priority_in != "OBR-27"
    return _message(
        flag,
        envelope,
        "ORU^R01^ORU_R01",
        _software(flag),
        _patient(flag, envelope),
        _order(flag, "RE"),
        _request(
            flag,
            envelope,
            {
                22: moment(flag.decided_at),
                24: "RAD",
                25: _PRELIMINARY,
                27: _quantity_timing(flag) if in_obr else "",
            },
        ),
        _timing(flag) if in_tq1 else "",
        *_observations(flag),
    )


def build_order(
    flag: Flag, envelope: Envelope, message: OrderMessage = "OMI^O23", priority_in: PriorityIn = "both"
) -> Message:
    """OMI^O23 or ORM^O01: the order with another priority (ORC-1 XO). ORM^O01 has no TQ1. Equal flags, equal messages.

    It never cancels, whatever is withdrawn: the films are to be read in any case.
    """
    if message == "ORM^O01":
        timing = _quantity_timing(flag)
        return _message(
            flag,
            envelope,
            "ORM^O01^ORM_O01",
            _patient(flag, envelope),
            _order(flag, "XO", {7: timing}),
            _request(flag, envelope, {24: text(flag.context.modality) or "RAD", 27: timing}),  # modality: RAD-4
            *_notes(flag),
            # By this segment of IHE's (RAD-4) an image manager knows the study.
            segment("ZDS", {1: components(text(flag.study_uid), "HILUM", "Application", "DICOM")}),
        )
    in_obr, in_tq1 = priority_in != "TQ1-9", priority_in != "OBR-27"
    timing = _quantity_timing(flag) if in_obr else ""
    return _message(
        flag,
        envelope,
        "OMI^O23^OMI_O23",
        _software(flag),
        _patient(flag, envelope),
        _order(flag, "XO", {7: timing}),
        _timing(flag) if in_tq1 else "",
        _request(flag, envelope, {24: "RAD", 27: timing}),
        *_notes(flag),
        _imaging_procedure(flag),
    )


def control_id(flag: Flag, message_type: str) -> str:
    """MSH-10: the same for the same flag, on every machine. 20 characters, as many as v2.5.1 has room for."""
    number = int(derive_uid("hl7", message_type, flag.study_uid, flag.model_id, flag.revision).rpartition(".")[2])
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 100, 5))


def _message(flag: Flag, envelope: Envelope, message_type: str, *segments: str) -> Message:
    header = {
        3: _application(envelope.sending_application),
        4: _application(envelope.sending_facility),
        5: _application(envelope.receiving_application),
        6: _application(envelope.receiving_facility),
        7: moment(flag.decided_at),
        9: message_type,
        10: control_id(flag, message_type),
        11: envelope.processing_id,
        12: "2.5.1",
        18: envelope.character_set,
    }
    return Message(
        control_id=header[10], encoded=encode(segment("MSH", header) + "".join(segments), envelope.character_set)
    )


def _application(name: str) -> str:
    return components(*map(text, name.split("^")))


def _software(flag: Flag) -> str:
    return segment("SFT", {1: "hilum", 2: text(__version__), 3: "hilum", 4: text(flag.model_id)})


def _patient(flag: Flag, envelope: Envelope) -> str:
    context = flag.context
    identifier = text(context.patient_id)
    issuer = subcomponents(*authority(context.issuer_of_patient_id))
    return segment(
        "PID",
        {
            1: "1",
            3: components(identifier, "", "", issuer, "PI") if identifier else "",
            5: patient_name(context.patient_name, envelope.character_set),
            7: dicom_date(context.patient_birth_date),
            8: context.patient_sex if context.patient_sex in {"M", "F", "O"} else "",
        },
    )


def _order_number(flag: Flag) -> str:
    return text(flag.context.accession_number) or text(flag.study_uid)


def _order(flag: Flag, control: str, more: dict[int, str] | None = None) -> str:
    return segment("ORC", {1: control, 3: _order_number(flag), **(more or {}), 9: moment(flag.decided_at)})


def _request(flag: Flag, envelope: Envelope, more: dict[int, str]) -> str:
    context = flag.context
    described = text(context.study_description)
    service = (coded(_SERVICE), "", described, "L") if described else (coded(_SERVICE, CHEST_FILM),)
    return segment(
        "OBR",
        {
            1: "1",
            3: _order_number(flag),
            4: components(*service),
            7: dicom_moment(context.study_date, context.study_time),
            16: provider_name(context.referring_physician_name, envelope.character_set),
            18: text(context.accession_number),
            19: text(context.study_id),  # the Requested Procedure ID, where the modality follows IHE
            **more,
        },
    )


def _priority(flag: Flag) -> Code | None:
    """None: nothing is said, and the order keeps its own. No order is told less than it said itself."""
    said = flag.urgency > Urgency.ROUTINE or flag.withdrawn is not None
    return _PRIORITY[max(flag.urgency, flag.order_urgency)] if said else None


def _quantity_timing(flag: Flag) -> str:
    """TQ, with the priority alone."""
    priority = _priority(flag)
    return components("", "", "", "", "", priority.value) if priority is not None else ""


def _timing(flag: Flag) -> str:
    priority = _priority(flag)
    return segment("TQ1", {1: "1", 9: coded(priority)}) if priority is not None else ""


def _notes(flag: Flag) -> Iterator[str]:
    for number, sentence in enumerate(sentences(flag), 1):
        yield segment("NTE", {1: str(number), 2: "O", 3: text(sentence)})


def _imaging_procedure(flag: Flag) -> str:
    # Two more that IPC wants and no film carries for certain: the step of the procedure stands for itself.
    procedure = text(flag.context.study_id) or _order_number(flag)
    return segment(
        "IPC",
        {
            1: _order_number(flag),
            2: procedure,
            3: text(flag.study_uid),
            4: procedure,
            5: components(text(flag.context.modality), "", "DCM") if flag.context.modality else "",
        },
    )


def _observations(flag: Flag) -> Iterator[str]:
    """OBX for the study, its urgency, each finding of the flag's reasons, each sentence.

    OBX-4 is the finding's name: the same finding in another revision is the same observation.
    """
    common = {
        14: dicom_moment(flag.context.study_date, flag.context.study_time),
        17: components("", text(f"{flag.model_name} {flag.model_version}")),
        18: components(text(flag.model_id), "HILUM"),
        19: moment(flag.decided_at),
    }
    observations: list[dict[int, str]] = [
        {2: "ST", 3: coded(_STUDY), 5: text(flag.study_uid), 11: _DESCRIPTION},
        {2: "CWE", 3: coded(PRIORITY), 5: coded(URGENCY[flag.urgency]), 11: _PRELIMINARY, **common},
    ]
    if flag.withdrawn is not None:  # whichever were found: which, a withdrawn flag does not say
        observations.append({2: "CWE", 3: coded(_FINDING), 11: _WITHDRAWN[flag.withdrawn], **common})
    for reason in flag.reasons:
        observations += ({**finding, **common} for finding in _finding(reason))
    for number, sentence in enumerate(sentences(flag), 1):
        observations.append(
            {2: "TX", 3: coded(*_COMMENT), 4: str(number), 5: text(sentence), 11: _PRELIMINARY, **common}
        )
    for number, observation in enumerate(observations, 1):
        yield segment("OBX", {1: str(number), **observation})


def _finding(reason: Reason) -> tuple[dict[int, str], dict[int, str]]:
    """The finding, and how probable it is beside the threshold that it passed.

    Abnormal flags A and H (table 0078), never AA or HH: how soon to look is said by the priority, and no panic value is
    a triage device's to declare.
    """
    code = finding_code(reason.finding)
    label = text(reason.finding)
    probability = f"{reason.probability:.4f}"
    found = {
        2: "CWE",
        3: coded(_FINDING),
        4: label,
        5: coded(code, Code(reason.finding, "L", reason.finding)),
        8: "A",
        9: probability,
        11: _PRELIMINARY,
    }
    measured = {
        2: "NM",
        3: coded(_PROBABILITY),
        4: label,
        5: probability,
        6: coded(_NO_UNITS),
        7: f"<{reason.threshold:.4f}",
        8: "H",
        11: _PRELIMINARY,
    }
    return found, measured
