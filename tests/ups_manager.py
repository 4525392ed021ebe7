"""A strict manager of Unified Procedure Steps, by pynetdicom (PS3.4 Annex CC): it refuses what the standard does."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import UnifiedProcedureStepPush, Verification

# Table CC.2.5-3, N-CREATE, usage of SCU and SCP.
TYPE_1 = (
    *("ScheduledProcedureStepPriority", "ProcedureStepLabel", "ScheduledProcedureStepStartDateTime"),
    *("InputReadinessState", "ProcedureStepState"),
)
TYPE_2 = (
    *("TransactionUID", "WorklistLabel", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence"),
    *("ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence"),
    *("ScheduledWorkitemCodeSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("OtherPatientIDsSequence", "PatientBirthDate", "PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence"),
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence"),
    *("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"),
)
NOT_TO_BE_SET = (
    *("SOPInstanceUID", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "ReferencedRequestSequence", "ProcedureStepState", "AdmissionID"),
)
ALLOWED = {
    "ScheduledProcedureStepPriority": {"HIGH", "MEDIUM", "LOW"},
    "InputReadinessState": {"INCOMPLETE", "UNAVAILABLE", "READY"},
    "ProcedureStepState": {"SCHEDULED"},
}
REQUEST_CANCEL = 2


@dataclass
class UpsManager:
    """Its habits may be changed while it runs; `messages` is what it took, in order: operation, UID, data set."""

    port: int = 0
    answer: int = 0  # other than 0: what every operation is answered with
    stalled: bool = False
    drop: bool = False
    tasks: dict[str, Dataset] = field(default_factory=dict)
    messages: list[tuple[str, str, Dataset]] = field(default_factory=list)
    syntaxes: tuple[str, ...] = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")

    def start(self) -> None:
        ae = AE("UPSMANAGER")
        ae.add_supported_context(UnifiedProcedureStepPush, list(self.syntaxes))
        ae.add_supported_context(Verification)
        self._let_go = threading.Event()
        handlers = [
            (evt.EVT_N_CREATE, self._create),
            (evt.EVT_N_SET, self._set),
            (evt.EVT_N_ACTION, self._act),
        ]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.socket.getsockname()[1]

    def stop(self) -> None:
        self._let_go.set()
        self._server.shutdown()

    def heal(self) -> None:
        self.answer, self.stalled, self.drop = 0, False, False
        self._let_go.set()
        self._let_go = threading.Event()

    def _habit(self, event: evt.Event) -> int:
        if self.stalled:
            self._let_go.wait(30)
        if self.drop:
            event.assoc.dul.socket.socket.close()
        return self.answer or (0x0110 if self.stalled or self.drop else 0)

    def _create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if status := self._habit(event):
            return status, None
        uid, said = str(event.request.AffectedSOPInstanceUID), event.attribute_list
        if event.request.AffectedSOPClassUID != UnifiedProcedureStepPush:
            return 0x0119, None
        if uid in self.tasks:
            return 0x0111, None
        if "SOPInstanceUID" in said or any(keyword not in said for keyword in (*TYPE_1, *TYPE_2)):
            return 0x0120, None
        if any(not said[keyword].value for keyword in TYPE_1):
            return 0x0121, None
        if said.TransactionUID or any(said[keyword].value not in values for keyword, values in ALLOWED.items()):
            return 0x0106, None
        self.tasks[uid] = deepcopy(said)
        self.messages.append(("create", uid, said))
        return 0x0000, said

    def _set(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if status := self._habit(event):
            return status, None
        uid, said = str(event.request.RequestedSOPInstanceUID), event.modification_list
        task = self.tasks.get(uid)
        if task is None:
            return 0xC307, None
        if task.ProcedureStepState in {"COMPLETED", "CANCELED"}:
            return 0xC300, None
        if task.ProcedureStepState == "IN PROGRESS":
            return 0xC301, None
        if any(keyword in said for keyword in NOT_TO_BE_SET) or "TransactionUID" in said:
            return 0x0106, None
        task.update(said)
        self.messages.append(("set", uid, said))
        return 0x0000, None

    def _act(self, event: evt.Event) -> tuple[int, Dataset | None]:
        if status := self._habit(event):
            return status, None
        uid, said = str(event.request.RequestedSOPInstanceUID), event.action_information
        if event.request.RequestedSOPClassUID != UnifiedProcedureStepPush or event.action_type != REQUEST_CANCEL:
            return 0x0211, None
        task = self.tasks.get(uid)
        if task is None:
            return 0xC307, None
        states = {"CANCELED": 0xB304, "COMPLETED": 0xC311, "IN PROGRESS": 0xC312}
        if task.ProcedureStepState in states:
            return states[task.ProcedureStepState], None
        task.ProcedureStepState = "CANCELED"
        self.messages.append(("cancel", uid, said))
        return 0x0000, None
