"""Storage Commitment, Push Model, as provider (PS3.4 Annex J): whether hilum keeps what a modality has sent it.

A modality asks by N-ACTION and is answered at once that it was heard; what hilum keeps it is told by N-EVENT-REPORT, on
an association that hilum opens where the modality's address is configured, else on the one it asked on. Committed is
what has a row of this SOP class and its bytes in the spool. That holds until retention lets them go, no longer: hilum
is no archive, and nobody should delete his only other copy because of it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final, TypeAlias

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from schemas.errors import RecordError, SpoolError
from schemas.identity import is_uid
from worker.ports import Spool

log = logging.getLogger("hilum.receive")

SOP_CLASS: Final = str(StorageCommitmentPushModel)
SOP_INSTANCE: Final = str(StorageCommitmentPushModelInstance)  # well-known, J.3.5
EVENT: Final = evt.EVT_N_ACTION
REQUEST: Final = 1  # Action Type ID, J.3.2

SUCCESS: Final = 0x0000
NO_SUCH_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_ACTION: Final = 0x0123
OUT_OF_RESOURCES: Final = 0x0213
# Failure Reason (PS3.3 C.14.1.1)
PROCESSING_FAILURE: Final = 0x0110
NOT_KEPT: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119

_COMPLETE, _FAILURES = 1, 2  # Event Type ID, J.3.3
_MOST_WAITING: Final = 100
_ATTEMPTS: Final = 3

# From SOP Instance UIDs to SOP class and spool file of each that is known. Raises `RecordError`.
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Sequence[tuple[str, str | None]]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTo:
    """Where the answers for an AE title go."""

    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    transaction: str
    references: tuple[tuple[str, str], ...]  # SOP class and instance


class CommitmentScp:
    """Handles N-ACTION, as `ExtraHandler` wants it. `start` it before the port opens.

    Parameters
    ----------
    report_to:
        By AE title; whoever is not in it is answered on the association that it asked on.
    timeout:
        Seconds, of connecting and of every exchange with a modality that is reported to.
    pause:
        Seconds before a modality that did not listen is tried again.
    """

    def __init__(
        self,
        known: Known,
        spool: Spool,
        report_to: Mapping[str, ReportTo],
        *,
        timeout: float = 10.0,
        pause: float = 5.0,
    ) -> None:
        self._known, self._spool = known, spool
        self._report_to = dict(report_to)
        self._timeout, self._pause = timeout, pause
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(_MOST_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment", daemon=True)

    def start(self) -> None:
        """Be ready to report."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Report no more; who was not told asks again."""
        self._stopping.set()
        self._thread.join(timeout)

    def __call__(self, event: evt.Event) -> tuple[int, None]:
        """Status and no Action Reply."""
        request = event.request
        if request.RequestedSOPInstanceUID != SOP_INSTANCE:
            return NO_SUCH_INSTANCE, None
        if request.ActionTypeID != REQUEST:
            return NO_SUCH_ACTION, None
        try:
            asked = _asked(event.action_information)
        except Exception as error:  # noqa: BLE001 - pydicom raises anything on hostile bytes
            log.warning("commitment-unreadable kind=%s", type(error).__name__)
            return INVALID_ARGUMENT, None
        sender = event.assoc.sender
        address = self._report_to.get(sender.calling_ae)
        if address is None:
            event.assoc.afterwards.append(partial(self._report_here, event.assoc, event.context, asked))
            return SUCCESS, None
        try:
            self._waiting.put_nowait(partial(self._report_there, asked, sender.called_ae, sender.calling_ae, address))
        except queue.Full:
            return OUT_OF_RESOURCES, None
        return SUCCESS, None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                report = self._waiting.get(timeout=0.25)
            except queue.Empty:
                continue
            try:
                report()
            except Exception:  # a fault of ours: the others are told all the same
                log.exception("commitment-failed")

    def _report_here(self, assoc: Any, context: Any, asked: _Asked) -> None:
        event_type, information = self._answer(asked)
        report = N_EVENT_REPORT()
        report.MessageID = 1
        report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = UID(SOP_CLASS), UID(SOP_INSTANCE)
        report.EventTypeID = event_type
        syntax = context.transfer_syntax
        encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        if encoded is not None and assoc.is_established:
            report.EventInformation = BytesIO(encoded)
            assoc.dimse.send_msg(report, context.context_id)

    def _report_there(self, asked: _Asked, own_title: str, ae_title: str, address: ReportTo) -> None:
        event_type, information = self._answer(asked)
        for attempt in range(1, _ATTEMPTS + 1):
            if self._reported(event_type, information, own_title, ae_title, address):
                return
            log.warning("commitment-not-told ae=%s attempt=%d", ae_title, attempt)
            if self._stopping.wait(self._pause if attempt < _ATTEMPTS else 0):
                return

    def _reported(
        self, event_type: int, information: Dataset, own_title: str, ae_title: str, address: ReportTo
    ) -> bool:
        ae = ApplicationEntity(own_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = self._timeout
        ae.add_requested_context(SOP_CLASS)
        assoc = ae.associate(
            address.host, address.port, ae_title=ae_title, ext_neg=[build_role(SOP_CLASS, scp_role=True)]
        )
        if not assoc.is_established:
            return False
        try:
            status, _ = assoc.send_n_event_report(information, event_type, SOP_CLASS, SOP_INSTANCE)
        except ValueError:  # it does not let us be the provider, or breaks off
            return False
        finally:
            if assoc.is_established:
                assoc.release()
        return bool(status.get("Status") == SUCCESS)

    def _answer(self, asked: _Asked) -> tuple[int, Dataset]:
        """Event Type ID and Event Information (J.3.3.1)."""
        began = time.monotonic()
        information = Dataset()
        information.TransactionUID = asked.transaction
        kept: list[Dataset] = []
        failed: list[Dataset] = []
        for (sop_class, sop_uid), reason in self._reasons(asked.references):
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, sop_uid
            if reason:
                reference.FailureReason = reason
            (failed if reason else kept).append(reference)
        if kept:
            information.ReferencedSOPSequence = kept
        if failed:
            information.FailedSOPSequence = failed
        seconds = time.monotonic() - began
        log.info("commitment kept=%d failed=%d seconds=%.3f", len(kept), len(failed), seconds)
        return _FAILURES if failed else _COMPLETE, information

    def _reasons(self, references: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
        """Each reference with its Failure Reason, 0 for what is kept."""
        try:
            known = self._known(sorted({sop_uid for _, sop_uid in references}))
        except RecordError as error:
            log.error("commitment-without-record error=%s", error)
            return [(reference, PROCESSING_FAILURE) for reference in references]
        return [(reference, self._reason(reference[0], known.get(reference[1], ()))) for reference in references]

    def _reason(self, sop_class: str, versions: Sequence[tuple[str, str | None]]) -> int:
        here = [known_class for known_class, path in versions if path is not None and self._is_there(path)]
        if sop_class in here:
            return 0
        return CLASS_CONFLICT if here else NOT_KEPT

    def _is_there(self, path: str) -> bool:
        try:
            self._spool.path_of(path)
        except SpoolError:
            return False
        return True


def _asked(information: Dataset) -> _Asked:
    """What an Action Information asks for. Raises on what is none."""
    transaction = str(information.TransactionUID)
    references = tuple(
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.ReferencedSOPSequence
    )
    uids = [transaction, *(uid for reference in references for uid in reference)]
    if not references or not all(is_uid(uid, lenient=True) for uid in uids):
        raise ValueError("not a request")
    return _Asked(transaction=transaction, references=references)
