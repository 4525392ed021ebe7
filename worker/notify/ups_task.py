"""A flag as a reading task: a Unified Procedure Step (PS3.3 C.30, PS3.4 table CC.2.5-3), created, changed, cancelled.

One task stands for a study until the flag is withdrawn or the task is closed at the manager's; then the next flag makes
another. Its SOP Instance UID follows from the study, and from the revision that began a later task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from schemas.decision import Urgency
from schemas.findings import Code
from schemas.flag import Flag, Withdrawal
from worker.notify.study_module import patient_and_study, plain
from worker.notify.uids import derive_uid
from worker.notify.wording import sentences

PRIORITY: Final[Mapping[Urgency, str]] = {  # Scheduled Procedure Step Priority (0074,1200)
    Urgency.STAT: "HIGH",
    Urgency.URGENT: "MEDIUM",
    Urgency.ROUTINE: "LOW",
}
INTERPRETATION: Final = Code("110005", "DCM", "Interpretation")  # CID 9231
_FINDING: Final = Code("121071", "DCM", "Finding")
# Procedure Step Discontinuation Reason (CID 9300). For a study that was reported elsewhere, or whose model was
# recalled, it has none; the words say it.
_DISCONTINUED: Final = Code("110513", "DCM", "Discontinued for unspecified reason")
_WRONG_ENTRY: Final = Code("110514", "DCM", "Incorrect worklist entry selected")
_LABEL: Final = "hilum reading list"
_OBJECT: Final = re.compile(r"(?P<uid>2\.25\.\d+)#\d+(?P<over> withdrawn)?", re.ASCII)
_LONGEST_TEXT: Final = 10_240  # characters of an LT


def task_uid(flag: Flag) -> str:
    """The task that the flag is about: the one that its predecessor was told of, unless that ended it."""
    before = _OBJECT.fullmatch(flag.predecessor_object_id)
    if before is None:
        return derive_uid("ups", flag.study_uid)
    return next_task_uid(flag) if before["over"] else before["uid"]


def next_task_uid(flag: Flag) -> str:
    """A task that begins with this revision, where the one before it is closed."""
    return derive_uid("ups", flag.study_uid, flag.revision)


def object_id(flag: Flag, uid: str) -> str:
    """What was sent: which task, which revision, and whether that took the task back. `task_uid` reads it again."""
    return f"{uid}#{flag.revision}{'' if flag.withdrawn is None else ' withdrawn'}"


def task(flag: Flag) -> Dataset:
    """Attribute List of the N-CREATE: everything of type 1 and 2."""
    patient = patient_and_study(flag.context)
    decided = f"{flag.decided_at.astimezone():%Y%m%d%H%M%S}"
    request = _dataset(
        {
            "StudyInstanceUID": flag.study_uid,
            "AccessionNumber": patient["AccessionNumber"],
            "RequestedProcedureID": patient["StudyID"],
            "RequestedProcedureDescription": patient.get("StudyDescription", ""),
            "ReferringPhysicianName": patient["ReferringPhysicianName"],
        },
        empty=("IssuerOfAccessionNumberSequence", "RequestedProcedureCodeSequence"),
    )
    created = _dataset(
        {
            "TransactionUID": "",  # nobody has claimed it
            "ProcedureStepState": "SCHEDULED",
            "ScheduledProcedureStepStartDateTime": decided,
            "InputReadinessState": "READY",
            "WorklistLabel": _LABEL,
            "StudyInstanceUID": flag.study_uid,
            "AdmissionID": "",
            "AdmittingDiagnosesDescription": "",
            "IssuerOfPatientID": patient.get("IssuerOfPatientID", ""),
            **{keyword: patient[keyword] for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")},
        },
        empty=(
            "ScheduledStationNameCodeSequence",
            "ScheduledStationClassCodeSequence",
            "ScheduledStationGeographicLocationCodeSequence",
            "IssuerOfPatientIDQualifiersSequence",
            "OtherPatientIDsSequence",
            "IssuerOfAdmissionIDSequence",
            "AdmittingDiagnosesCodeSequence",
            "ProcedureStepProgressInformationSequence",
            "UnifiedProcedureStepPerformedProcedureSequence",
        ),
    )
    created.ScheduledWorkitemCodeSequence = [_code(INTERPRETATION)]
    created.ReferencedRequestSequence = [request]
    created.update(change(flag))
    return created


def change(flag: Flag) -> Dataset:
    """Modification List of the N-SET: what a revision changes. The patient's part may not be set (CC.2.5-3)."""
    description = plain(flag.context.study_description) or "Radiograph"
    changed = _dataset(
        {
            "SpecificCharacterSet": "ISO_IR 192",
            "ScheduledProcedureStepPriority": PRIORITY[max(flag.urgency, flag.order_urgency)],
            "ProcedureStepLabel": f"Reading: {description}"[:64],
            "CommentsOnTheScheduledProcedureStep": _words(flag),
        }
    )
    changed.ScheduledProcessingParametersSequence = [_parameter(reason.words) for reason in flag.reasons]
    changed.InputInformationSequence = _input(flag)
    return changed


def cancellation(flag: Flag) -> Dataset:
    """Action Information of the N-ACTION Request UPS Cancel (CC.2.2.1), with the reason of the withdrawal."""
    said = _dataset({"SpecificCharacterSet": "ISO_IR 192", "ReasonForCancellation": _words(flag)})
    reason = _WRONG_ENTRY if flag.withdrawn is Withdrawal.PATIENT else _DISCONTINUED
    said.ProcedureStepDiscontinuationReasonCodeSequence = [_code(reason)]
    said.ContactDisplayName = "hilum"
    return said


def _words(flag: Flag) -> str:
    return plain(" ".join(sentences(flag)))[:_LONGEST_TEXT]


def _parameter(words: str) -> Dataset:
    """A content item (PS3.3 10.2)."""
    item = _dataset({"ValueType": "TEXT", "TextValue": words})
    item.ConceptNameCodeSequence = [_code(_FINDING)]
    return item


def _input(flag: Flag) -> list[Dataset]:
    """The films, series by series (PS3.3 table 10-3b)."""
    by_series: dict[str, list[Dataset]] = {}
    for film in flag.films:
        instance = film.instance
        reference = _dataset(
            {"ReferencedSOPClassUID": instance.sop_class, "ReferencedSOPInstanceUID": instance.sop_uid}
        )
        by_series.setdefault(instance.series_uid, []).append(reference)
    items = []
    for series_uid, references in by_series.items():
        item = _dataset(
            {"TypeOfInstances": "DICOM", "StudyInstanceUID": flag.study_uid, "SeriesInstanceUID": series_uid}
        )
        item.ReferencedSOPSequence = references
        items.append(item)
    return items


def _code(code: Code) -> Dataset:
    return _dataset({"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning})


def _dataset(elements: Mapping[str, str], *, empty: tuple[str, ...] = ()) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        # As sent: pydicom would warn of an odd value, and its warning quotes the patient.
        made.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    for keyword in empty:
        setattr(made, keyword, [])
    return made
