"""Unified Procedure Steps as provider, to be looked at (PS3.4 Annex CC): UPS Pull and UPS Query.

Every open study is one step, the reading of it, and is SCHEDULED for as long as it waits; one that has been reported
exists no more. C-FIND and N-GET are answered. Who wants to claim or to change a step is told that he may not (0x0124):
it is hilum's list that says what waits, not whose turn it is; a manager of tasks is told by the channel `dicom-ups`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import evt
from pynetdicom.sop_class import (
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
)

from schemas.decision import Urgency
from schemas.errors import RecordError
from worker.record.reading_list import OpenStudy
from worker.worklist.identifier import Key, vr_of
from worker.worklist.mwl_scp import INTERPRETATION, PATIENT, description, itself, nothing, procedure_id, reading
from worker.worklist.sentences import comments
from worker.worklist.window import Items, Mismatch, Query, Table, Window, table, text

SOP_CLASSES: Final = frozenset({str(UnifiedProcedureStepPull), str(UnifiedProcedureStepQuery)})
PRIORITY: Final[Mapping[Urgency, str]] = {  # Scheduled Procedure Step Priority (0074,1200)
    Urgency.STAT: "HIGH",
    Urgency.URGENT: "MEDIUM",
    Urgency.ROUTINE: "LOW",
}
SUCCESS: Final = 0x0000
NOT_AUTHORISED: Final = 0x0124  # PS3.7 C.5.25
NO_SUCH_STEP: Final = 0xC307
PROCESSING_FAILURE: Final = 0x0110
_READ_ONLY: Final = "hilum's list is read-only; a report takes a study off it"

UidOf = Callable[[str], str]


class UpsWindow(Window):
    """The window under UPS Pull and UPS Query.

    Parameters
    ----------
    uid_of:
        The SOP Instance UID of a study's step, from its Study Instance UID; always the same.
    """

    def __init__(self, reading_list: Callable[[], Sequence[OpenStudy]], uid_of: UidOf) -> None:
        super().__init__(SOP_CLASSES, _shows(uid_of), reading_list)
        self._uid_of = uid_of

    def handlers(self) -> list[tuple[Any, Callable[[evt.Event], tuple[Any, Dataset | None]]]]:
        """pynetdicom's events besides C-FIND, and who handles them."""
        return [
            (evt.EVT_N_GET, self.get),
            (evt.EVT_N_SET, self.refuse),
            (evt.EVT_N_ACTION, self.refuse),
            (evt.EVT_N_CREATE, self.refuse),
        ]

    def get(self, event: evt.Event) -> tuple[Any, Dataset | None]:
        """N-GET of one step: the attributes that are asked for, or all (CC.2.7)."""
        uid = str(event.request.RequestedSOPInstanceUID or "")
        tags = [int(tag) for tag in event.request.AttributeIdentifierList or ()]
        try:
            keys = [Key(tag, vr_of(tag)) for tag in tags] or [Key(tag, vr_of(tag)) for tag in self.shows]
            query = Query(keys, self.shows, implicit_vr=False)
            study = next((study for study in self._reading_list() if self._uid_of(study.study_uid) == uid), None)
        except Mismatch as error:
            return _status(PROCESSING_FAILURE, str(error)), None
        except RecordError:
            return _status(PROCESSING_FAILURE, "the worklist cannot be read now: ask again later"), None
        if study is None:
            return _status(NO_SUCH_STEP, "no such step waits to be read"), None
        (encoded,) = query.answers([study])
        return SUCCESS, read_dataset(BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)

    def refuse(self, event: evt.Event) -> tuple[Any, Dataset | None]:
        """N-SET, N-ACTION and N-CREATE."""
        return _status(NOT_AUTHORISED, _READ_ONLY), None


def _status(status: int, comment: str) -> Dataset:
    said = Dataset()
    said.Status, said.ErrorComment = status, comment[:64]  # LO
    return said


def _received(study: OpenStudy) -> str:
    return f"{study.received_at.astimezone():%Y%m%d%H%M%S}"


def _changed(study: OpenStudy) -> str:
    return f"{(study.decided_at or study.received_at).astimezone():%Y%m%d%H%M%S}"


def _reasons(study: OpenStudy) -> Sequence[str]:
    return study.reasons


def _series(study: OpenStudy) -> Sequence[tuple[str, str, list[Any]]]:
    """Study, series and films, for each series."""
    by_series: dict[str, list[Any]] = {}
    for film in study.films:
        by_series.setdefault(film.series_uid, []).append(film)
    return [(study.study_uid, series_uid, films) for series_uid, films in by_series.items()]


_FINDING: Final = Items(
    itself, table({"CodeValue": "121071", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Finding"})
)


def _shows(uid_of: UidOf) -> Table:
    """Table CC.2.5-3, as far as it concerns a step that is SCHEDULED."""
    return table(
        {
            **PATIENT,
            "SOPClassUID": str(UnifiedProcedureStepPush),  # of every step, CC.3.1
            "SOPInstanceUID": lambda s: uid_of(s.study_uid),
            "ScheduledProcedureStepPriority": lambda s: PRIORITY[s.priority],
            "ScheduledProcedureStepModificationDateTime": _changed,
            "ProcedureStepLabel": reading,
            "WorklistLabel": "hilum reading list",
            "ScheduledProcessingParametersSequence": Items(
                _reasons,
                table({"ValueType": "TEXT", "ConceptNameCodeSequence": _FINDING, "TextValue": lambda words: words}),
            ),
            "ScheduledStationNameCodeSequence": Items(nothing, {}),
            "ScheduledStationClassCodeSequence": Items(nothing, {}),
            "ScheduledStationGeographicLocationCodeSequence": Items(nothing, {}),
            "ScheduledHumanPerformersSequence": Items(nothing, {}),
            "ScheduledProcedureStepStartDateTime": _received,
            "ScheduledWorkitemCodeSequence": INTERPRETATION,
            "CommentsOnTheScheduledProcedureStep": comments,
            "InputReadinessState": "READY",
            "InputInformationSequence": Items(
                _series,
                table(
                    {
                        "TypeOfInstances": "DICOM",
                        "StudyInstanceUID": lambda series: series[0],
                        "SeriesInstanceUID": lambda series: series[1],
                        "ReferencedSOPSequence": Items(
                            lambda series: series[2],
                            table(
                                {
                                    "ReferencedSOPClassUID": lambda film: film.sop_class,
                                    "ReferencedSOPInstanceUID": lambda film: film.sop_uid,
                                }
                            ),
                        ),
                    }
                ),
            ),
            "StudyInstanceUID": lambda s: s.study_uid,
            "IssuerOfAdmissionIDSequence": Items(nothing, {}),
            "AdmittingDiagnosesDescription": "",
            "AdmittingDiagnosesCodeSequence": Items(nothing, {}),
            "IssuerOfPatientIDQualifiersSequence": Items(nothing, {}),
            "OtherPatientIDsSequence": Items(nothing, {}),
            "ReferencedRequestSequence": Items(
                itself,
                table(
                    {
                        "StudyInstanceUID": lambda s: s.study_uid,
                        "AccessionNumber": lambda s: text(s.context.accession_number),
                        "IssuerOfAccessionNumberSequence": Items(nothing, {}),
                        "RequestedProcedureID": procedure_id,
                        "RequestedProcedureDescription": description,
                        "RequestedProcedureCodeSequence": Items(nothing, {}),
                        "ReferringPhysicianName": lambda s: text(s.context.referring_physician_name),
                    }
                ),
            ),
            "ProcedureStepState": "SCHEDULED",
            "ProcedureStepProgressInformationSequence": Items(nothing, {}),
            "UnifiedProcedureStepPerformedProcedureSequence": Items(nothing, {}),
        }
    )
