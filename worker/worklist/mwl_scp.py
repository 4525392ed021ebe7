"""Modality Worklist as provider (PS3.4 Annex K): the reading list for whoever speaks nothing newer.

Every open study is one scheduled procedure step, the reading of it; the most urgent come first, and none is left out.
The list is written by nobody from here: Modality Worklist has no service that could.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pynetdicom.sop_class import ModalityWorklistInformationFind

from schemas.decision import Urgency
from worker.record.reading_list import OpenStudy
from worker.worklist.sentences import comments
from worker.worklist.window import Items, Table, Window, table, text

PRIORITY: Final[Mapping[Urgency, str]] = {  # Requested Procedure Priority (0040,1003), PS3.3 C.4.11
    Urgency.STAT: "STAT",
    Urgency.URGENT: "HIGH",
    Urgency.ROUTINE: "ROUTINE",
}
_DETACHED_STUDY: Final = "1.2.840.10008.3.1.2.3.1"  # what a Referenced Study is an instance of; retired, still used


def modality_worklist(reading_list: Callable[[], Sequence[OpenStudy]]) -> Window:
    """The window under the Modality Worklist Information Model (K.6)."""
    return Window(frozenset({str(ModalityWorklistInformationFind)}), _SHOWS, reading_list)


def itself(study: Any) -> Sequence[Any]:
    """One item, of the study itself."""
    return (study,)


def nothing(study: Any) -> Sequence[Any]:
    """No item."""
    return ()


def code(value: str, scheme: str, meaning: str) -> Items:
    """A code sequence of one code (PS3.3 8.8)."""
    return Items(itself, table({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}))


INTERPRETATION: Final = code("110005", "DCM", "Interpretation")  # CID 9231


def description(study: OpenStudy) -> str:
    """What was examined."""
    return text(study.context.study_description) or "Radiograph"


def reading(study: OpenStudy) -> str:
    """What is to be done."""
    return f"Reading: {description(study)}"[:64]


def procedure_id(study: OpenStudy) -> str:
    """Study ID, or hilum's own number where the film has none: the attribute must have a value."""
    return text(study.context.study_id) or str(study.id)


def stations(study: OpenStudy) -> str:
    """AE titles that sent the films."""
    return "\\".join(map(text, study.stations)) or "UNKNOWN"


def date(written: str) -> str:
    """A date of the film's; empty where it is none (DA, PS3.5 6.2)."""
    return written if len(written) == 8 and written.isascii() and written.isdecimal() else ""


def time(written: str) -> str:
    """A time of the film's; empty where it is none (TM)."""
    digits = written.replace(".", "", 1)
    return written if digits.isascii() and digits.isdecimal() and len(written) <= 13 else ""


def sex(written: str) -> str:
    """M, F or O; anything else is empty."""
    return written if written in {"M", "F", "O"} else ""


_STEP: Final[Table] = table(
    {
        "Modality": lambda s: text(s.context.modality),
        "RequestedContrastAgent": "",
        "ScheduledStationAETitle": stations,
        "ScheduledProcedureStepStartDate": lambda s: f"{s.received_at.astimezone():%Y%m%d}",
        "ScheduledProcedureStepStartTime": lambda s: f"{s.received_at.astimezone():%H%M%S}",
        "ScheduledPerformingPhysicianName": "",
        "ScheduledProcedureStepDescription": reading,
        "ScheduledProtocolCodeSequence": INTERPRETATION,
        "ScheduledProcedureStepID": lambda s: str(s.id),
        "ScheduledStationName": "",
        "ScheduledProcedureStepLocation": "",
        "PreMedication": "",
        "ScheduledProcedureStepStatus": "SCHEDULED",
        "CommentsOnTheScheduledProcedureStep": comments,
    }
)
PATIENT: Final[Mapping[str, Any]] = {
    "PatientName": lambda s: text(s.context.patient_name),
    "PatientID": lambda s: text(s.context.patient_id),
    "IssuerOfPatientID": lambda s: text(s.context.issuer_of_patient_id),
    "PatientBirthDate": lambda s: date(s.context.patient_birth_date),
    "PatientSex": lambda s: sex(s.context.patient_sex),
    "MedicalAlerts": "",
    "PregnancyStatus": "",
    "SpecialNeeds": "",
    "AdmissionID": "",
}
_SHOWS: Final[Table] = table(
    {
        **PATIENT,
        "ScheduledProcedureStepSequence": Items(itself, _STEP),
        "RequestedProcedureID": procedure_id,
        "RequestedProcedureDescription": description,
        "RequestedProcedureCodeSequence": Items(nothing, {}),
        "RequestedProcedurePriority": lambda s: PRIORITY[s.priority],
        "RequestedProcedureComments": comments,
        "StudyInstanceUID": lambda s: s.study_uid,
        "ReferencedStudySequence": Items(
            itself,
            table({"ReferencedSOPClassUID": _DETACHED_STUDY, "ReferencedSOPInstanceUID": lambda s: s.study_uid}),
        ),
        "StudyDate": lambda s: date(s.context.study_date),
        "StudyTime": lambda s: time(s.context.study_time),
        "StudyDescription": lambda s: text(s.context.study_description),
        "StudyID": lambda s: text(s.context.study_id),
        "PatientTransportArrangements": "",
        "AccessionNumber": lambda s: text(s.context.accession_number),
        "ReferringPhysicianName": lambda s: text(s.context.referring_physician_name),
        "RequestingPhysician": "",
        "InstitutionName": lambda s: text(s.context.institution_name),
        "CurrentPatientLocation": "",
        "ReferencedPatientSequence": Items(nothing, {}),
        "PatientWeight": "",
        "ConfidentialityConstraintOnPatientDataDescription": "",
        "PatientState": "",
        "Allergies": "",
    }
)
