"""The DICOM port: who may come in, what may be sent, and C-STORE into the spool."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification

from schemas.errors import ConfigurationError
from schemas.identity import Sender
from schemas.rejection import Rejection
from worker.ports import Spool, Window
from worker.receive.access import LocalAE, Refusal, admit, too_many
from worker.receive.negotiation import Proposal, contexts_for, refused
from worker.receive.store import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Arrival, Intake
from worker.receive.transport import StoreAssociation, StoreServer

log = logging.getLogger("hilum.receive")

# The same refusal of the same sender is told once in this time, and in all so many: a storm must not fill the table.
_QUIET: Final = timedelta(minutes=1)
_MOST_TOLD: Final = 100
# Connections that are no associations yet, beyond those that are: probes, and peers that say nothing.
_STRANGERS: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerConfig:
    """Times in seconds; `max_pdu` in bytes. Port 0 picks a free one."""

    host: str
    port: int
    local_aes: tuple[LocalAE, ...]
    max_associations: int = 100
    max_pdu: int = 128 * 1024
    network_timeout: float = 60.0  # without a byte from the peer, in an association
    acse_timeout: float = 30.0  # until the A-ASSOCIATE-RQ is complete (ARTIM, PS3.8 9.1.4)
    dimse_timeout: float = 30.0  # for an answer to what we asked


@dataclass(frozen=True, slots=True)
class ExtraHandler:
    """A further DIMSE service on the same port: its SOP classes, and pynetdicom's event with its handler."""

    sop_classes: frozenset[str]
    event: Any
    handler: Callable[[Any], Any]


class Listener:
    """Opens the port at `start`; every film that `intake` has taken is answered 0x0000, and no other.

    Parameters
    ----------
    config:
        Where to listen, for whom.
    transfer_syntaxes:
        UIDs that can be decoded; no other is negotiated.
    spool:
        Where the bytes go as they come.
    intake:
        Called with head, sender, the complete film and the order urgency of the local AE; commits, or raises
        `HilumError`, whose status is answered (`schemas.errors.STATUS_OF`).
    rejected:
        Told of each refused association, SOP class or transfer syntax, rate-limited.
    extra_handlers:
        Services besides C-ECHO and C-STORE.
    windows:
        Who answers C-FIND.
    clock:
        The time, aware.
    """

    def __init__(
        self,
        config: ListenerConfig,
        transfer_syntaxes: Sequence[str],
        spool: Spool,
        intake: Intake,
        rejected: Callable[[Rejection], object],
        *,
        extra_handlers: Sequence[ExtraHandler] = (),
        windows: Sequence[Window] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        for local in config.local_aes:
            for line in local.accept:
                _ = line.network  # a fault of the configuration shows now, not at the first call
        self._config = config
        self._transfer_syntaxes = tuple(transfer_syntaxes)
        self._spool = spool
        self._intake = intake
        self._rejected = rejected
        self._extra_handlers = tuple(extra_handlers)
        self._windows = {sop_class: window for window in windows for sop_class in window.sop_classes}
        self._services = frozenset(self._windows).union(*(extra.sop_classes for extra in extra_handlers))
        self._clock = clock
        self._lock = threading.Lock()
        self._admitted: set[StoreAssociation] = set()
        self._told: dict[tuple[Sender, str], datetime] = {}
        self._server: StoreServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the port. Raises `ConfigurationError` when it cannot be opened."""
        config = self._config
        ae = ApplicationEntity(config.local_aes[0].ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = config.max_pdu
        ae.network_timeout = config.network_timeout
        ae.acse_timeout = config.acse_timeout
        ae.dimse_timeout = config.dimse_timeout
        # pynetdicom counts port probes as associations: we count those that we have let in.
        ae.maximum_associations = config.max_associations + 2 * _STRANGERS
        ae.add_supported_context(Verification)
        try:
            self._server = ae.make_server(
                (config.host, config.port),
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_ACCEPTED, self._on_accepted),
                    *_by_event(self._extra_handlers),
                ],
                server_class=StoreServer,
                open_arrival=self._open_arrival,
                windows=self._windows,
                most_connections=config.max_associations + _STRANGERS,
            )
        except OSError as error:
            raise ConfigurationError(
                f"dicom: cannot listen on {config.host}:{config.port}: {error.strerror}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="dicom-listener", daemon=True
        )
        self._thread.start()
        log.info("listening port=%d", self.port)

    def stop(self, timeout: float = 5.0) -> None:
        """Close the port, let associations finish for `timeout` seconds, then abort those that have not."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop()
        until = time.monotonic() + timeout
        for assoc in server.active_associations:
            assoc.join(max(0.0, until - time.monotonic()))
        left = [assoc for assoc in server.active_associations if assoc.is_alive()]
        for assoc in left:
            assoc.give_up()
        until = time.monotonic() + 2.0
        for assoc in left:
            assoc.join(max(0.0, until - time.monotonic()))
        log.info("stopped aborted=%d", len(left))

    @property
    def port(self) -> int:
        """The port that is open."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return int(self._server.server_address[1])

    @property
    def active_associations(self) -> int:
        """Associations that have been let in and have not ended."""
        with self._lock:
            self._admitted = {assoc for assoc in self._admitted if assoc.is_alive()}
            return len(self._admitted)

    def _on_requested(self, event: evt.Event) -> None:
        """Before negotiation. Whatever goes wrong in here leaves the association without any context: fail closed."""
        assoc: StoreAssociation = event.assoc
        called, calling = assoc.dul.titles
        sender = Sender(calling_ae=calling, called_ae=called, address=assoc.requestor.address)
        verdict = admit(sender, self._config.local_aes)
        if isinstance(verdict, LocalAE) and not self._take_place(assoc):
            verdict = too_many(self._config.max_associations)
        if isinstance(verdict, Refusal):
            assoc.acse.send_reject(verdict.result, verdict.source, verdict.reason)
            assoc.kill()
            self._tell(sender, verdict.what, verdict.mend)
            return
        assoc.sender, assoc.local_ae = sender, verdict
        assoc.acceptor.supported_contexts = contexts_for(_proposal(assoc), self._transfer_syntaxes, self._services)

    def _on_accepted(self, event: evt.Event) -> None:
        assoc: StoreAssociation = event.assoc
        taken = {str(context.abstract_syntax) for context in assoc.accepted_contexts}
        for what, mend in refused(_proposal(assoc), taken, self._transfer_syntaxes):
            self._tell(assoc.sender, what, mend)

    def _open_arrival(self, assoc: StoreAssociation, request: C_STORE, transfer_syntax: str) -> Arrival:
        assert assoc.local_ae is not None  # noqa: S101 - only an admitted association has contexts
        return Arrival(
            self._spool,
            self._intake,
            sop_class=str(request.AffectedSOPClassUID or ""),
            sop_uid=str(request.AffectedSOPInstanceUID or ""),
            transfer_syntax=str(transfer_syntax),
            sender=assoc.sender,
            order_urgency=assoc.local_ae.order_urgency,
        )

    def _take_place(self, assoc: StoreAssociation) -> bool:
        with self._lock:
            self._admitted = {a for a in self._admitted if a.is_alive()}
            free = len(self._admitted) < self._config.max_associations
            if free:
                self._admitted.add(assoc)
        return free

    def _tell(self, sender: Sender, what: str, mend: str) -> None:
        now = self._clock()
        with self._lock:
            self._told = {key: at for key, at in self._told.items() if now - at < _QUIET}
            quiet = (sender, what) in self._told or len(self._told) >= _MOST_TOLD
            if not quiet:
                self._told[sender, what] = now
        if quiet:
            return
        log.warning("refused what=%r", what)
        try:
            self._rejected(Rejection(sender=sender, what=what, mend=mend, at=now))
        except Exception:  # the record may be away: that must not cost the association
            log.exception("rejection-not-recorded")


def _by_event(extras: Sequence[ExtraHandler]) -> list[tuple[Any, Callable[[evt.Event], Any]]]:
    """pynetdicom has one handler for an event: ours asks whose SOP class the presentation context is of."""
    handlers: dict[Any, dict[str, Callable[[Any], Any]]] = {}
    for extra in extras:
        handlers.setdefault(extra.event, {}).update(dict.fromkeys(extra.sop_classes, extra.handler))

    def dispatch(of: dict[str, Callable[[Any], Any]], event: evt.Event) -> Any:
        return of[str(event.context.abstract_syntax)](event)

    return [(event, partial(dispatch, of)) for event, of in handlers.items()]


def _proposal(assoc: StoreAssociation) -> Proposal:
    contexts = assoc.requestor.primitive.presentation_context_definition_list
    return tuple((str(context.abstract_syntax), tuple(map(str, context.transfer_syntax))) for context in contexts)
