"""The channel that makes a reading task of a flag at a Unified Procedure Step manager (PS3.4 Annex CC, UPS Push).

A first flag is an N-CREATE, a later revision an N-SET of the same task while it is SCHEDULED, a withdrawal an N-ACTION
that requests its cancellation. What the manager says decides what becomes of it: a task that somebody is reading, or
has read, needs no raising any more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from io import BytesIO
from typing import Final

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.dimse_messages import N_CREATE_RQ, N_SET_RQ
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.sop_class import UnifiedProcedureStepPush, Verification

from schemas.decision import Urgency
from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from schemas.flag import Flag, Receipt, Withdrawal
from worker.notify.association import Association, AssociationBroken, AssociationRejected, Context, Peer
from worker.notify.dicom_store import echoed, encoded, failure, in_both_syntaxes
from worker.notify.ups_task import cancellation, change, next_task_uid, object_id, task, task_uid

log = logging.getLogger("hilum.notify")

PUSH: Final = str(UnifiedProcedureStepPush)
REQUEST_CANCEL: Final = 2  # Action Type ID, table CC.2.2-1

CREATE, SET, CANCEL = "N-CREATE", "N-SET", "N-ACTION"

_THERE_ALREADY: Final = 0x0111  # Duplicate SOP Instance
_CLOSED: Final = 0xC300  # COMPLETED or CANCELED: may no longer be updated
_NOT_THERE: Final = frozenset({0x0112, 0xC307})

# Statuses that leave nothing to be done, and what they say.
_DONE: Final[Mapping[int, str]] = {
    0x0000: "",
    0x0001: ", some attributes not supported there",
    0x0107: ", some attributes not known there",
    0x0116: ", some values out of range there",
    0xB300: ", created with modifications",
    0xB305: ", some values coerced",
    0xC301: ", somebody is reading it already",
    0xC302: ", somebody is reading it already",
    _CLOSED: ", it was closed there already",
}
_CANCELLED: Final[Mapping[int, str]] = {
    **_DONE,
    0xB304: ", it was cancelled already",
    0xC311: ", it was completed already",
    0xC313: ", who reads it was asked and goes on",
    0xC307: ", it is not there",
    0x0112: ", it is not there",
}
# Whoever reports a study may have its task in hand still, and closes it himself.
_REPORTED: Final[Mapping[int, str]] = {**_CANCELLED, 0xC312: ", who has it in hand will close it"}
_PASSING: Final = frozenset({0x0110, 0x0213, 0xFE00})
_REFUSALS: Final = {
    0x0105: "does not know an attribute",
    0x0106: "calls an attribute's value invalid",
    0x0115: "calls an argument invalid",
    0x0117: "calls the SOP Instance UID invalid",
    0x0118: "does not know Unified Procedure Steps",
    0x0119: "says that the task is of another SOP class",
    0x0120: "misses an attribute",
    0x0121: "misses a value",
    0x0122: "does not support UPS Push",
    0x0124: "does not authorise hilum",
    0x0211: "does not know the operation",
    0x0212: "calls an argument mistyped",
    0xC309: "says that a task must be created SCHEDULED",
    0xC310: "says that the task is not yet in progress",
    0xC312: "cannot tell whoever is reading the study that its flag was withdrawn",
}


class DicomUps:
    """Kind `dicom-ups`. An association for each flag; one thread sends, `close` may come from another.

    A study's task is one SOP instance, whose UID is the same for every attempt: a flag that is sent again finds what is
    there already.
    """

    def __init__(self, *, name: str, peer: Peer, timeout: float = 10.0) -> None:
        self.name = name
        self._peer = peer
        self._timeout = timeout
        self._association: _Tasks | None = None
        self._closed = False

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        try:
            association = self._open()
            try:
                return self._send_on(association, self._context(association), flag)
            finally:
                self._association = None
                association.release()
        except (AssociationBroken, AssociationRejected, OSError) as error:
            raise self._failure(error) from error

    def check(self) -> str:
        """C-ECHO, and whether tasks may be pushed. Raises `DeliveryError`."""
        try:
            association = self._open()
            try:
                status = association.echo()
                context = self._context(association)
            finally:
                self._association = None
                association.release()
        except (AssociationBroken, AssociationRejected, OSError) as error:
            raise self._failure(error) from error
        return f"{echoed(status, self._peer)} and takes reading tasks in {UID(context.transfer_syntax).name}"

    def close(self) -> None:
        """Let go of the manager for good, if need be in the middle of a send, which then fails for the time being."""
        self._closed = True
        busy = self._association
        if busy is not None:
            busy.abort()

    def _send_on(self, association: _Tasks, context: Context, flag: Flag) -> Receipt:
        uid = task_uid(flag)
        if flag.withdrawn is not None:
            status = association.action(context, uid, REQUEST_CANCEL, encoded(cancellation(flag), context))
            done = _REPORTED if flag.withdrawn is Withdrawal.REPORTED else _CANCELLED
            return Receipt(object_id=object_id(flag, uid), proof=self._judge(CANCEL, status, done))
        operation, status = self._put(association, context, uid, flag)
        if status == _CLOSED and flag.urgency > Urgency.ROUTINE and uid != next_task_uid(flag):
            uid = next_task_uid(flag)  # what closed the task did not know of this
            operation, status = self._put(association, context, uid, flag)
        return Receipt(object_id=object_id(flag, uid), proof=self._judge(operation, status, _DONE))

    def _put(self, association: _Tasks, context: Context, uid: str, flag: Flag) -> tuple[str, int]:
        """Change the task, or create it where it is not there; which of the two came last, and its status."""
        created = False
        if flag.predecessor is not None:
            status = association.set(context, uid, encoded(change(flag), context))
            if status not in _NOT_THERE:
                return SET, status
            created = True
        status = association.create(context, uid, encoded(task(flag), context))
        if status != _THERE_ALREADY or created:
            return CREATE, status
        # From an attempt whose answer was lost, or whose flag was overtaken: it must say what this one says.
        return SET, association.set(context, uid, encoded(change(flag), context))

    def _judge(self, operation: str, status: int, done: Mapping[int, str]) -> str:
        said = f"{operation} 0x{status:04X}"
        if status in done:
            return f"{said}{done[status]}"
        if status in _PASSING or status >> 8 == 0xA7:
            raise TransientFailure(f"{self._peer} cannot take the task now ({said}): look at its log")
        words = _REFUSALS.get(status, "refuses the task")
        raise PermanentFailure(f"{self._peer} {words} ({said}): mend it there, then replay")

    def _open(self) -> _Tasks:
        if self._closed:
            raise TransientFailure(f"{self._peer}: the channel is closed")
        contexts = [*in_both_syntaxes(PUSH), (str(Verification), ImplicitVRLittleEndian)]
        association = _Tasks.request(self._peer, contexts, self._timeout)
        assert isinstance(association, _Tasks)  # noqa: S101 - `request` makes one of its own class
        self._association = association
        if self._closed:  # in the meantime
            association.abort()
        return association

    def _context(self, association: Association) -> Context:
        context = association.context(PUSH)
        if context is None:
            raise PermanentFailure(f"{self._peer} does not accept UPS Push ({PUSH}): have it enabled there")
        return context

    def _failure(self, error: Exception) -> DeliveryError:
        return failure(error, self._peer, self._timeout, closed=self._closed)


class _Tasks(Association):
    """With the two operations that nothing else of hilum's needs; both raise as `Association.store`."""

    def create(self, context: Context, uid: str, attributes: bytes) -> int:
        """N-CREATE; its status."""
        command = N_CREATE()
        command.AffectedSOPClassUID = UID(PUSH)
        command.AffectedSOPInstanceUID = UID(uid)
        command.AttributeList = BytesIO(attributes)
        return self._exchange(N_CREATE_RQ(), command, context.id)

    def set(self, context: Context, uid: str, modifications: bytes) -> int:
        """N-SET; its status."""
        command = N_SET()
        command.RequestedSOPClassUID = UID(PUSH)
        command.RequestedSOPInstanceUID = UID(uid)
        command.ModificationList = BytesIO(modifications)
        return self._exchange(N_SET_RQ(), command, context.id)
