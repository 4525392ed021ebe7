"""Storage Commitment, Push Model (PS3.4 Annex J): the peer is asked whether it keeps what it took, and answers later.

The request is an N-ACTION after the C-STORE. The answer is an N-EVENT-REPORT, on the same association while it lasts
or on one that the peer opens to our listener; either way it comes to `Reports`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt

from schemas.errors import HilumError
from schemas.identity import is_uid

log = logging.getLogger("hilum.notify")

SOP_CLASS: Final = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
SOP_INSTANCE: Final = "1.2.840.10008.1.20.1.1"  # well-known (J.3.5)
REQUEST: Final = 1  # Action Type ID (J.3.2)
EVENT: Final = evt.EVT_N_EVENT_REPORT

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_CLASS: Final = 0x0118

# Failure Reason (PS3.3 C.14.1.1), and the mend; also what an N-ACTION may be answered with (PS3.7 10.1.4).
REASONS: Final = {
    0x0110: "it failed to process the request: look at its log, then replay",
    0x0112: "it does not hold the object: see why it let go of what it had taken, then replay",
    0x0119: "it holds another SOP class under this UID: remove that object there, then replay",
    0x0122: "it does not commit itself to this SOP class: have that enabled there, or set commitment = false",
    0x0124: "it does not authorise hilum to ask: permit it there, or set commitment = false",
    0x0131: "it says that the transaction UID is in use: replay",
    0x0211: "it does not know the request: set commitment = false",
    0x0213: "it is out of resources: make room there, then replay",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a peer says of one object that it was sent."""

    object_id: str  # SOP Instance UID
    kept: bool
    words: str
    ae_title: str  # of the peer


# Told of an answer; how many deliveries it was about. Raises `HilumError` when it cannot be noted.
Told: TypeAlias = Callable[[Answer], int]


def request(sop_class: str, sop_uid: str) -> Dataset:
    """Action Information for one object (J.3.2.1.1).

    The Transaction UID is the only identifier that hilum draws anew each time: one that was answered may never be used
    again (J.3.3), and a resend is another transaction about the same object.
    """
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, sop_uid
    information = Dataset()
    information.TransactionUID = generate_uid(prefix=None)
    information.ReferencedSOPSequence = [reference]
    return information


def answers(information: Dataset, ae_title: str) -> Iterator[Answer]:
    """What an N-EVENT-REPORT says, object by object (J.3.3.1); what names no object is passed over."""
    for reference in information.get("ReferencedSOPSequence") or ():
        if uid := _uid(reference):
            yield Answer(object_id=uid, kept=True, words=f"Storage Commitment by {ae_title}", ae_title=ae_title)
    for reference in information.get("FailedSOPSequence") or ():
        if uid := _uid(reference):
            words = f"{ae_title} took the object and does not keep it: {why(reference.get('FailureReason'))}"
            yield Answer(object_id=uid, kept=False, words=words, ae_title=ae_title)


def why(status: object) -> str:
    """A Failure Reason, or the status of an N-ACTION, in words with the mend."""
    if not isinstance(status, int):
        return "it does not say why: look at its log, then replay"
    return f"{REASONS.get(status, 'look at its log, then replay')} (0x{status:04X})"


class Reports:
    """Handles N-EVENT-REPORT, as `worker.receive.listener.ExtraHandler` wants it.

    Parameters
    ----------
    told:
        See `Told`.
    patience:
        Seconds that a report may be ahead of the note that the object was sent: a peer on the next desk answers sooner
        than the database is written.
    """

    def __init__(self, told: Told, *, patience: float = 5.0) -> None:
        self._told = told
        self._patience = patience

    def __call__(self, event: evt.Event) -> tuple[int, None]:
        """Status and no Event Reply."""
        if event.request.AffectedSOPClassUID != SOP_CLASS:
            return NO_SUCH_CLASS, None
        return self.note(lambda: event.event_information, str(event.assoc.requestor.ae_title).strip()), None

    def note(self, information: Callable[[], Dataset], ae_title: str) -> int:
        """Tell of every answer; the status for the peer. Success also for objects of which nothing is known here."""
        try:
            found = list(answers(information(), ae_title))
        except Exception as error:  # noqa: BLE001 - pydicom raises anything on hostile bytes
            log.warning("commitment-unreadable kind=%s", type(error).__name__)
            return INVALID_ARGUMENT
        until = time.monotonic() + self._patience
        try:
            for answer in found:
                self._tell(answer, until)
        except HilumError as error:  # the record is away: the peer may tell it again
            log.error("commitment-not-noted error=%s", error)
            return PROCESSING_FAILURE
        return SUCCESS

    def _tell(self, answer: Answer, until: float) -> None:
        while not (count := self._told(answer)) and time.monotonic() < until:
            time.sleep(0.05)
        log.log(
            logging.INFO if answer.kept and count else logging.WARNING,
            "commitment object=%s kept=%s deliveries=%d",
            answer.object_id,
            answer.kept,
            count,
        )


def _uid(reference: Any) -> str:
    uid = str(reference.get("ReferencedSOPInstanceUID") or "")
    return uid if is_uid(uid, lenient=True) else ""
