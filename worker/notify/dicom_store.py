"""C-STORE of objects to one destination, and what the outcome means: delivered, try again, or a person must act."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from schemas.flag import Receipt
from worker.notify import commitment
from worker.notify.association import Association, AssociationBroken, AssociationRejected, Context, Peer, unexpected
from worker.notify.idle import IDLE_SECONDS, Idle
from worker.notify.network import network_words

log = logging.getLogger("hilum.notify")


class DicomStore:
    """Keeps an association open between sends that follow one another closely, and lets it go when none does.

    One thread sends; `close` may come from another.

    Parameters
    ----------
    sop_classes:
        All are proposed; the first that the peer accepts is sent.
    reports:
        Given, the peer is asked for Storage Commitment of everything that it takes. Gets the answers that come on
        an association of ours after `store` has returned.
    """

    def __init__(
        self,
        peer: Peer,
        sop_classes: Sequence[str],
        *,
        timeout: float,
        idle: float = IDLE_SECONDS,
        reports: commitment.Reports | None = None,
    ) -> None:
        self._peer = peer
        self._sop_classes = tuple(sop_classes)
        self._timeout = timeout
        self._reports = reports
        self._lock = threading.Lock()  # held while an association is in use
        self._association: Association | None = None
        self._try_apart = True  # until commitment is refused on an association of its own as well
        self._asked = ""  # the object that `store` is busy with
        self._answer: commitment.Answer | None = None  # what the peer has said of it so far
        self._idle = Idle(idle, self._lock, keeps=lambda: self._association is not None, let_go=self._let_go)
        self._closed = False

    def store(self, build: Callable[[str], Dataset]) -> Receipt:
        """Send what `build` makes for the SOP class that was accepted.

        Raises
        ------
        TransientFailure, PermanentFailure
            Not delivered. PermanentFailure also when the peer says at once that it does not keep what it took.
        """
        with self._lock:
            kept = self._association if self._association is not None and self._association.attend() else None
            try:
                if kept is not None:
                    try:
                        return self._store_on(kept, build)
                    except (AssociationBroken, ConnectionError):
                        # It died while nobody looked. The same UID again is the same object, so nothing is doubled.
                        log.info("association-died ae=%s", self._peer.ae_title)
                self._drop()
                self._association = self._open()
                return self._store_on(self._association, build)
            except (AssociationBroken, AssociationRejected, OSError) as error:
                self._drop()
                raise self._failure(error) from error
            finally:
                self._idle.used()

    def check(self) -> str:
        """C-ECHO on an association of its own, and which of our SOP classes it takes; words for a person."""
        try:
            association = self._open()
            try:
                status = association.echo()
                context = self._context(association)
                promise = self._promise(association)
            finally:
                association.release()
        except (AssociationBroken, AssociationRejected, OSError) as error:
            raise self._failure(error) from error
        said = echoed(status, self._peer)
        taken = f"{UID(context.sop_class).name} in {UID(context.transfer_syntax).name}"
        return f"{said} and takes {taken}{promise}"

    def close(self) -> None:
        """Let go of the peer for good, if need be in the middle of a send, which then fails for the time being."""
        self._closed = True
        busy = self._association
        if not self._lock.acquire(blocking=False):
            if busy is not None:
                busy.abort()
            self._lock.acquire()
        association, self._association = self._association, None
        self._idle.cancel()
        self._lock.release()
        if association is not None:
            association.release()

    def _store_on(self, association: Association, build: Callable[[str], Dataset]) -> Receipt:
        context = self._context(association)
        dataset = build(context.sop_class)
        object_id = str(dataset.SOPInstanceUID)
        said = proof(association.store(context, object_id, encoded(dataset, context)), self._peer)
        if self._reports is None:
            return Receipt(object_id=object_id, proof=said)
        return self._ask(association, context.sop_class, Receipt(object_id=object_id, proof=said))

    def _ask(self, association: Association, sop_class: str, stored: Receipt) -> Receipt:
        """Ask for Storage Commitment. It has arrived: whatever becomes of the question, it is not sent again for it."""
        self._asked, self._answer = stored.object_id, None
        try:
            with self._committing(association) as (asked, context):
                if context is None:
                    return replace(stored, proof=f"{stored.proof}, commitment is not offered")
                information = encoded(commitment.request(sop_class, stored.object_id), context)
                status = asked.action(context, commitment.SOP_INSTANCE, commitment.REQUEST, information)
        except (AssociationBroken, AssociationRejected, OSError) as error:
            self._drop()
            log.warning("commitment-not-asked ae=%s kind=%s", self._peer.ae_title, type(error).__name__)
            return replace(stored, proof=f"{stored.proof}, commitment could not be asked for")
        finally:
            self._asked = ""
        if self._answer is not None:
            if not self._answer.kept:
                raise PermanentFailure(self._answer.words)
            return replace(stored, proof=f"{stored.proof}; {self._answer.words}")
        if status != commitment.SUCCESS:
            return replace(stored, proof=f"{stored.proof}, commitment refused: {commitment.why(status)}")
        return replace(stored, proof=f"{stored.proof}, commitment asked for", proven=False)

    @contextmanager
    def _committing(self, association: Association) -> Iterator[tuple[Association, Context | None]]:
        """The association to ask on: this one, or one of its own where the peer keeps the two services apart."""
        context = association.context(commitment.SOP_CLASS)
        if context is not None or not self._try_apart:
            yield association, context
            return
        try:
            apart = Association.request(self._peer, in_both_syntaxes(commitment.SOP_CLASS), self._timeout, self._hear)
        except AssociationRejected:
            self._try_apart = False
            yield association, None
            return
        try:
            context = apart.context(commitment.SOP_CLASS)
            self._try_apart = context is not None
            yield apart, context
        finally:
            apart.release()

    def _hear(self, information: Dataset) -> int:
        """An N-EVENT-REPORT on an association of ours."""
        if self._reports is None:
            return unexpected(information)
        try:
            for answer in commitment.answers(information, self._peer.ae_title):
                if answer.object_id == self._asked:
                    self._answer = answer  # goes into the receipt: of what is being sent the record knows nothing yet
                    return commitment.SUCCESS
        except Exception:  # noqa: BLE001 - bytes that are no answer: `note` says so
            self._answer = None
        return self._reports.note(lambda: information, self._peer.ae_title)

    def _promise(self, association: Association) -> str:
        """What `check` says of Storage Commitment."""
        if self._reports is None:
            return ""
        with self._committing(association) as (_, context):
            return "; commits itself to storage" if context else "; offers no Storage Commitment: C-STORE is the proof"

    def _context(self, association: Association) -> Context:
        """The richest that was accepted. Raises `PermanentFailure` where none was."""
        for sop_class in self._sop_classes:
            context = association.context(sop_class)
            if context is not None:
                return context
        names = " or ".join(f"{UID(sop_class).name} ({sop_class})" for sop_class in self._sop_classes)
        raise PermanentFailure(f"{self._peer} does not accept {names}: have it enabled there")

    def _open(self) -> Association:
        if self._closed:
            raise TransientFailure(f"{self._peer}: the channel is closed")
        began = time.perf_counter()
        services = [commitment.SOP_CLASS] if self._reports is not None else []
        contexts = in_both_syntaxes(*self._sop_classes, *services)
        association = Association.request(
            self._peer, [*contexts, (Verification, ImplicitVRLittleEndian)], self._timeout, self._hear
        )
        self._try_apart = True
        log.info("associated ae=%s ms=%.1f", self._peer.ae_title, 1000 * (time.perf_counter() - began))
        return association

    def _drop(self) -> None:
        if self._association is not None:
            self._association.abort()
            self._association = None

    def _let_go(self) -> Callable[[], None] | None:
        association, self._association = self._association, None
        if association is None:
            return None
        association.attend()
        return association.release

    def _failure(self, error: Exception) -> DeliveryError:
        return failure(error, self._peer, self._timeout, closed=self._closed)


def in_both_syntaxes(*sop_classes: str) -> list[tuple[str, str]]:
    """A context for each syntax: of one with several the peer picks, and objects are ready in Explicit VR."""
    return [
        (sop_class, syntax) for sop_class in sop_classes for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ]


def encoded(dataset: Dataset, context: Context) -> bytes:
    """In the context's transfer syntax. Raises `PermanentFailure`: a fault of ours."""
    syntax = UID(context.transfer_syntax)
    written: bytes | None = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    if written is None:
        raise PermanentFailure("the object could not be encoded; a fault of hilum's: see the log")
    return written


def proof(status: int, peer: Peer) -> str:
    """What a C-STORE status says of the delivery (PS3.4 B.2.3, PS3.7 C).

    Raises
    ------
    TransientFailure
        The peer is short of something now.
    PermanentFailure
        The peer will not take this object, however often it is sent.
    """
    said = f"C-STORE 0x{status:04X}"
    if status == 0x0000:
        return said
    if status == 0x0111:  # Duplicate SOP Instance: it has the object already, from an attempt whose answer was lost
        return f"{said}, it was there already"
    if status in _REMARKS or status >> 12 == 0xB:
        return f"{said}, {_REMARKS.get(status, 'stored with a warning')}"
    if status >> 8 == 0xA7:
        raise TransientFailure(f"{peer} is out of resources ({said}): make room there")
    if status in {0x0110, 0x0210, 0xFE00}:
        raise TransientFailure(f"{peer} failed to process the object ({said}): look at its log")
    if status >> 8 == 0xA9:
        words = "says that the object does not match its SOP class"
    elif status >> 12 == 0xC:
        words = "cannot understand the object"
    else:
        words = _REFUSALS.get(status, "refuses the object")
    raise PermanentFailure(f"{peer} {words} ({said}): mend it there, then replay")


_REMARKS: Final = {
    0x0107: "stored, with remarks on its attributes",
    0x0116: "stored, with remarks on its values",
    0xB000: "stored, elements coerced",
    0xB006: "stored, elements discarded",
    0xB007: "stored, although it found no match with the SOP class",
}
_REFUSALS: Final = {
    0x0117: "calls the SOP Instance UID invalid",
    0x0122: "does not support the SOP class",
    0x0124: "does not authorise hilum to store",
    0x0211: "does not know C-STORE",
    0x0212: "calls an argument mistyped",
}


def echoed(status: int | None, peer: Peer) -> str:
    """What an answer to C-ECHO says, None where the peer offers none. Raises `TransientFailure`."""
    if status:
        raise TransientFailure(f"{peer} answers C-ECHO with status 0x{status:04X}: look at its log")
    return f"{peer} {'offers no C-ECHO' if status is None else 'answers C-ECHO'}"


def failure(error: Exception, peer: Peer, timeout: float, *, closed: bool) -> DeliveryError:
    """What an association that broke or never was means for a delivery; `closed`: it was we who let go."""
    if isinstance(error, AssociationRejected):
        return rejection(error, peer)
    if closed:
        return TransientFailure(f"{peer}: the channel was closed")
    if isinstance(error, AssociationBroken):
        return TransientFailure(f"{peer}: it {error}: look at its log")
    return TransientFailure(f"{peer}: {network_words(error, timeout)}")


def rejection(error: AssociationRejected, peer: Peer) -> DeliveryError:
    """The failure that a rejected association is, by who rejects and why (PS3.8 9.3.4)."""
    if error.source == 3:  # the provider's presentation side: congestion, local limit
        return TransientFailure(f"{peer} has no association to spare: {error}")
    if error.source == 1 and error.reason == 3:
        title = peer.calling_ae_title
        return PermanentFailure(f"{peer} does not know the calling AE title {title}: add it there")
    if error.source == 1 and error.reason == 7:
        where = f"{peer.host}:{peer.port}"
        return PermanentFailure(
            f"{where} does not answer to the AE title {peer.ae_title}: mend ae_title of this destination"
        )
    words = f"{peer} rejected the association: {error}"
    if error.result == 2:
        return TransientFailure(words)
    return PermanentFailure(f"{words}; ask its administrator why")
