"""C-STORE of reports to one destination, and what the outcome means: delivered, try again, or a person must act."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from worker.notify.association import Association, AssociationBroken, AssociationRejected, Peer

log = logging.getLogger("hilum.notify")

IDLE_SECONDS: Final = 5.0


class DicomStore:
    """Keeps an association open between sends that follow one another closely, and lets it go when none does.

    One thread sends; `close` may come from another.
    """

    def __init__(self, peer: Peer, sop_class: str, *, timeout: float, idle: float = IDLE_SECONDS) -> None:
        self._peer = peer
        self._sop_class = sop_class
        self._timeout = timeout
        self._idle = idle
        self._lock = threading.Lock()  # held while an association is in use
        self._association: Association | None = None
        self._used_at = 0.0
        self._timer: threading.Timer | None = None
        self._closed = False

    def store(self, dataset: Dataset) -> str:
        """Send `dataset`; the proof, in words. Raises `TransientFailure` or `PermanentFailure`."""
        with self._lock:
            kept = self._association if self._association is not None and self._association.is_quiet() else None
            try:
                if kept is not None:
                    try:
                        return self._store_on(kept, dataset)
                    except (AssociationBroken, ConnectionError):
                        # It died while nobody looked. The same UID again is the same object, so nothing is doubled.
                        log.info("association-died ae=%s", self._peer.ae_title)
                self._drop()
                self._association = self._open()
                return self._store_on(self._association, dataset)
            except (AssociationBroken, AssociationRejected, OSError) as error:
                self._drop()
                raise self._failure(error) from error
            finally:
                self._rest()

    def check(self) -> str:
        """C-ECHO on an association of its own, and whether it takes our SOP class; words for a person."""
        try:
            association = self._open()
            try:
                status = association.echo()
            finally:
                association.release()
        except (AssociationBroken, AssociationRejected, OSError) as error:
            raise self._failure(error) from error
        if status:
            raise TransientFailure(f"{self._peer} answers C-ECHO with status 0x{status:04X}: look at its log")
        context = association.context(self._sop_class)
        if context is None:
            raise self._not_accepted()
        echoed = "offers no C-ECHO" if status is None else "answers C-ECHO"
        return f"{self._peer} {echoed} and takes {UID(self._sop_class).name} in {UID(context.transfer_syntax).name}"

    def close(self) -> None:
        """Let go of the peer for good, if need be in the middle of a send, which then fails for the time being."""
        self._closed = True
        busy = self._association
        if not self._lock.acquire(blocking=False):
            if busy is not None:
                busy.abort()
            self._lock.acquire()
        association, self._association = self._association, None
        if self._timer is not None:
            self._timer.cancel()
        self._lock.release()
        if association is not None:
            association.release()

    def _store_on(self, association: Association, dataset: Dataset) -> str:
        context = association.context(self._sop_class)
        if context is None:
            raise self._not_accepted()
        syntax = UID(context.transfer_syntax)
        encoded = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
        if encoded is None:
            raise PermanentFailure("the report could not be encoded; a fault of hilum's: see the log")
        status = association.store(context, str(dataset.SOPInstanceUID), encoded)
        return proof(status, self._peer)

    def _open(self) -> Association:
        if self._closed:
            raise TransientFailure(f"{self._peer}: the channel is closed")
        began = time.perf_counter()
        # A context for each syntax: of one with several the peer picks, and reports are ready in Explicit VR.
        contexts = [(self._sop_class, syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
        association = Association.request(
            self._peer, [*contexts, (Verification, ImplicitVRLittleEndian)], self._timeout
        )
        log.info("associated ae=%s ms=%.1f", self._peer.ae_title, 1000 * (time.perf_counter() - began))
        return association

    def _drop(self) -> None:
        if self._association is not None:
            self._association.abort()
            self._association = None

    def _rest(self) -> None:
        self._used_at = time.monotonic()
        if self._timer is None and self._association is not None:
            self._arm(self._idle)

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._on_idle)
        self._timer.daemon = True
        self._timer.start()

    def _on_idle(self) -> None:
        with self._lock:
            self._timer = None
            left = self._used_at + self._idle - time.monotonic()
            if self._association is not None and left > 0:
                self._arm(left)
                return
            association, self._association = self._association, None
        if association is not None:
            association.release()

    def _not_accepted(self) -> PermanentFailure:
        name = UID(self._sop_class).name
        return PermanentFailure(f"{self._peer} does not accept {name} ({self._sop_class}): have it enabled there")

    def _failure(self, error: Exception) -> DeliveryError:
        if isinstance(error, AssociationRejected):
            return rejection(error, self._peer)
        if self._closed:
            return TransientFailure(f"{self._peer}: the channel was closed")
        return TransientFailure(f"{self._peer}: {_network_words(error, self._timeout)}")


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
    if status == 0x0111:  # Duplicate SOP Instance: it has the report already, from an attempt whose answer was lost
        return f"{said}, it was there already"
    if status in _REMARKS or status >> 12 == 0xB:
        return f"{said}, {_REMARKS.get(status, 'stored with a warning')}"
    if status >> 8 == 0xA7:
        raise TransientFailure(f"{peer} is out of resources ({said}): make room there")
    if status in {0x0110, 0x0210, 0xFE00}:
        raise TransientFailure(f"{peer} failed to process the report ({said}): look at its log")
    if status >> 8 == 0xA9:
        words = "says that the report does not match its SOP class"
    elif status >> 12 == 0xC:
        words = "cannot understand the report"
    else:
        words = _REFUSALS.get(status, "refuses the report")
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


def _network_words(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s: is it overloaded, or a firewall between?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: is it running, is the port right?"
    if isinstance(error, socket.gaierror):
        return "the host name is not known: mend host of this destination, or the name service"
    if isinstance(error, AssociationBroken):
        return f"it {error}: look at its log"
    return f"the network failed ({getattr(error, 'strerror', None) or type(error).__name__})"
