"""The only place that names concrete classes: from settings to a running worker."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import assert_never

import uvicorn

from schemas.errors import ConfigurationError, NotAnalysable, SpoolError
from schemas.identity import InstanceRef
from schemas.image import GrayImage
from schemas.outcome import ModelRef, Route
from worker.corridor import owner
from worker.corridor.bell import Bell
from worker.corridor.context import Hearing
from worker.corridor.delivery import Courier, DeliveryRules
from worker.corridor.intake import Intake
from worker.corridor.reading import Reading, ReadingRules
from worker.decide.policy import thresholds
from worker.decide.routing import recipients
from worker.decode.film import read_film
from worker.decode.selftest import usable_transfer_syntaxes
from worker.infer.bundle import Bundle, open_bundle
from worker.infer.choose import choose_runtime, load_runtime
from worker.infer.engine import Engine
from worker.notify import commitment
from worker.notify.association import Peer
from worker.notify.dicom_sc import DicomSc, FilmOf
from worker.notify.dicom_sr import DicomSr
from worker.notify.dicom_ups import DicomUps
from worker.notify.email import Mail, MailServer
from worker.notify.fhir_channel import Fhir
from worker.notify.hl7_messages import Envelope
from worker.notify.hl7_order import Hl7Order
from worker.notify.hl7_oru import Hl7Oru
from worker.notify.mllp import MllpPeer
from worker.notify.network import tls_context
from worker.notify.oauth import Access, ClientCredentials, GivenToken
from worker.notify.paper import Paper
from worker.notify.uids import derive_uid
from worker.notify.webhook import Webhook, signing_key
from worker.ports import Channel, Runtime
from worker.receive import commitment_scp
from worker.receive.access import Caller, LocalAE
from worker.receive.hl7_content import Rules
from worker.receive.hl7_listener import Hl7Listener, Hl7ListenerConfig, tls_server
from worker.receive.listener import ExtraHandler, Listener, ListenerConfig
from worker.receive.report_verdict import VerdictRules
from worker.record.context import Context
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.instances import Instances
from worker.record.jobs import Jobs
from worker.record.kept import Kept
from worker.record.outbox import Outbox
from worker.record.reading_list import ReadingList
from worker.record.rejections import Rejections
from worker.record.studies import Studies
from worker.record.worklist import Worklist
from worker.settings import (
    Alarms,
    Destination,
    DicomDestination,
    FhirDestination,
    Hl7Destination,
    OrderDestination,
    OruDestination,
    PaperDestination,
    ScDestination,
    Settings,
    SrDestination,
    UpsDestination,
    WebhookDestination,
    phrase,
)
from worker.spool.local import LocalSpool
from worker.tensor import recipe
from worker.upkeep import alarm, digest, finalise, rescue, retention
from worker.upkeep.calendar import Calendar, Duty
from worker.worklist.mwl_scp import modality_worklist
from worker.worklist.ups_scp import UpsWindow
from worker.worklist.web.app import create_app
from worker.worklist.window import Window

log = logging.getLogger("hilum.serve")


class Role(StrEnum):
    """What a process does; `hilum serve` does all, `--only` some."""

    RECEIVE = "receive"
    READ = "read"
    DELIVER = "deliver"
    WEB = "web"
    UPKEEP = "upkeep"


def now() -> datetime:
    """The clock that is passed in everywhere."""
    return datetime.now(UTC)


def database(settings: Settings) -> Database:
    """The database, not yet checked."""
    return Database(settings.database.url)


def bundle(settings: Settings) -> Bundle:
    """The configured bundle, hashes and recipe verified. Raises `ModelError`."""
    packaged = Path(str(resources.files("worker"))) / "models"
    return open_bundle(settings.model.bundle, [settings.model.store, packaged], recipe.fingerprint)


def engine(settings: Settings, model: Bundle) -> Engine:
    """Both models loaded and proven by the golden vectors. Raises `ModelError`."""

    def load(name: str) -> Runtime:
        return load_runtime(name, model, threads=settings.model.threads, max_batch=settings.model.max_batch)

    name = choose_runtime(settings.model.runtime)
    return Engine(
        load(name),
        model.card,
        max_batch=settings.model.max_batch,
        gather_ms=settings.model.gather_ms,
        fallback=None if name == "openvino" else partial(load, "openvino"),
    )


def _no_film(_: InstanceRef) -> None:
    """For a channel that is only asked whether its destination is there."""


def _nobody(_: commitment.Answer) -> int:
    return 0


def channel(  # noqa: PLR0911  one for each kind
    destination: Destination, settings: Settings, *, film: FilmOf = _no_film, committed: commitment.Told = _nobody
) -> Channel:
    """The channel of one `[[destinations]]` entry; `film` shows it films, `committed` hears what a PACS keeps."""
    name, timeout = destination.name, destination.timeout
    if isinstance(destination, DicomDestination):
        peer = Peer(
            ae_title=destination.ae_title,
            host=destination.host,
            port=destination.port,
            calling_ae_title=destination.calling_ae_title or settings.dicom.ae_title,
        )
    match destination:
        case SrDestination():
            return DicomSr(name=name, peer=peer, timeout=timeout, reports=_reports(destination, committed))
        case ScDestination():
            return DicomSc(name=name, peer=peer, film=film, timeout=timeout, reports=_reports(destination, committed))
        case UpsDestination():
            return DicomUps(name=name, peer=peer, timeout=timeout)
        case OruDestination():
            return Hl7Oru(
                name=name,
                peer=_mllp_peer(destination),
                envelope=_envelope(destination),
                priority_in=destination.priority_in,
                timeout=timeout,
            )
        case OrderDestination():
            return Hl7Order(
                name=name,
                peer=_mllp_peer(destination),
                envelope=_envelope(destination),
                message=destination.message,
                priority_in=destination.priority_in,
                timeout=timeout,
            )
        case FhirDestination():
            return Fhir(
                name=name,
                url=destination.url,
                access=_access(destination),
                patient_system=destination.patient_system,
                tls=_trusting(destination),
                timeout=timeout,
            )
        case WebhookDestination():
            return Webhook(
                name=name,
                url=destination.url,
                key=_signing_key(destination),
                identify=destination.identify,
                clock=now,
                tls=_trusting(destination),
                timeout=timeout,
            )
        case PaperDestination():
            return Paper(name=name, folder=destination.folder)
    assert_never(destination)


def _mllp_peer(destination: Hl7Destination) -> MllpPeer:
    with _naming(destination.name):
        tls = tls_context(destination.ca_file, destination.certificate, destination.key) if destination.tls else None
    return MllpPeer(host=destination.host, port=destination.port, tls=tls)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"destinations: {name}: {error}") from error


def _trusting(destination: FhirDestination | WebhookDestination) -> ssl.SSLContext:
    with _naming(destination.name):
        return tls_context(destination.ca_file, None, None)


def _signing_key(destination: WebhookDestination) -> bytes | None:
    with _naming(destination.name):
        return None if destination.secret is None else signing_key(destination.secret.get_secret_value())


def _access(destination: FhirDestination) -> Access:
    if destination.token_url is None or destination.client_secret is None:
        return GivenToken("" if destination.token is None else destination.token.get_secret_value())
    return ClientCredentials(
        destination.token_url,
        client_id=destination.client_id,
        client_secret=destination.client_secret.get_secret_value(),
        scope=destination.scope,
        tls=_trusting(destination),
        timeout=destination.timeout,
    )


def _envelope(destination: Hl7Destination) -> Envelope:
    return Envelope(
        sending_application=destination.sending_application,
        sending_facility=destination.sending_facility,
        receiving_application=destination.receiving_application,
        receiving_facility=destination.receiving_facility,
        processing_id=destination.processing_id,
        character_set=destination.character_set,
    )


def _reports(destination: SrDestination | ScDestination, committed: commitment.Told) -> commitment.Reports | None:
    return commitment.Reports(committed) if destination.commitment else None


def _asked(settings: Settings) -> list[SrDestination | ScDestination]:
    """The destinations that are asked for Storage Commitment."""
    return [d for d in settings.destinations if isinstance(d, SrDestination | ScDestination) and d.commitment]


def mail_of(alarms: Alarms) -> Mail | None:
    """Who is told when a flag is late; None where nobody is."""
    if not alarms.host or alarms.sender is None:
        return None
    try:
        tls = tls_context(alarms.ca_file, None, None)
    except ConfigurationError as error:
        raise ConfigurationError(f"alarms: {error}") from error
    server = MailServer(
        host=alarms.host,
        port=alarms.port,
        security=alarms.security,
        username=alarms.username,
        password="" if alarms.password is None else alarms.password.get_secret_value(),
        tls=tls,
    )
    return Mail(server, sender=alarms.sender, recipients=alarms.recipients, clock=now)


def route(settings: Settings) -> Route:
    """Who hears of what, by `[[destinations]]`."""
    return partial(recipients, [destination.audience() for destination in settings.destinations])


def delivery_rules(destination: Destination) -> DeliveryRules:
    """The lease outlasts the slowest delivery that succeeds, or it would be sent again for ever.

    That is a kept association that stalls, then connecting, negotiating and storing, then connecting, negotiating and
    asking for Storage Commitment, each within `timeout`.
    """
    rules = DeliveryRules()
    return replace(rules, lease=max(rules.lease, timedelta(seconds=8 * destination.timeout)))


def listener_config(settings: Settings) -> ListenerConfig:
    """The listener's own view of `[dicom]`."""
    dicom = settings.dicom
    accept = tuple(Caller(ae_title=c.ae_title, address=c.address) for c in dicom.accept)
    further = tuple(
        LocalAE(
            ae_title=ae.ae_title,
            order_urgency=ae.order_urgency,
            accept=tuple(Caller(ae_title=c.ae_title, address=c.address) for c in ae.accept) or accept,
        )
        for ae in dicom.also
    )
    return ListenerConfig(
        host=dicom.host,
        port=dicom.port,
        local_aes=(LocalAE(ae_title=dicom.ae_title, accept=accept), *further),
        max_associations=dicom.max_associations,
        max_pdu=dicom.max_pdu,
        network_timeout=dicom.network_timeout,
        acse_timeout=dicom.acse_timeout,
        dimse_timeout=dicom.dimse_timeout,
    )


def dicom_windows(settings: Settings, reading_list: ReadingList) -> list[Window]:
    """What others may look at on the DICOM port."""
    windows = [modality_worklist(reading_list.open)] if settings.worklist.mwl else []
    if settings.worklist.ups:
        windows.append(UpsWindow(reading_list.open, partial(derive_uid, "ups-window")))
    return windows


def step_handlers(windows: Sequence[Window]) -> list[ExtraHandler]:
    """What is said of a procedure step besides C-FIND."""
    return [
        ExtraHandler(window.sop_classes, event, handler)
        for window in windows
        if isinstance(window, UpsWindow)
        for event, handler in window.handlers()
    ]


def hl7_config(settings: Settings) -> Hl7ListenerConfig:
    """The listener's own view of `[hl7]`. Raises `ConfigurationError`."""
    hl7 = settings.hl7
    tls = None
    if hl7.tls and hl7.certificate is not None:
        tls = tls_server(hl7.certificate, hl7.key, hl7.ca_file)
    return Hl7ListenerConfig(
        host=hl7.host,
        port=hl7.port,
        accept=hl7.accept,
        max_connections=hl7.max_connections,
        max_message=hl7.max_message_kib << 10,
        message_seconds=hl7.message_seconds,
        idle_seconds=hl7.idle_seconds,
        tls=tls,
    )


def hl7_rules(settings: Settings) -> Rules:
    """How messages are understood, by `[hl7]`; what we send ourselves is known by its sending application."""
    hl7 = settings.hl7
    ours = {d.sending_application.partition("^")[0] for d in settings.destinations if isinstance(d, Hl7Destination)}
    return Rules(
        processing_id=hl7.processing_id,
        accession_in=hl7.accession_in,
        own_applications=frozenset({"HILUM", *ours}) - {""},
        verdicts=VerdictRules(
            positive=[phrase(p) for p in hl7.positive],
            negative=[phrase(p) for p in hl7.negative],
            codes={coded.code: coded.finding for coded in hl7.codes},
        ),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class WebServer:
    """The page in a thread of its own."""

    def __init__(self, app: object, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # open pages listen for news and would hold it for ever
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)

    def start(self, timeout: float = 10.0) -> None:
        """Start; returns once the port is open. Raises `ConfigurationError` when it cannot be opened."""
        self._thread.start()
        until = time.monotonic() + timeout
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                where = f"{self._server.config.host}:{self._server.config.port}"
                raise ConfigurationError(f"web: cannot listen on {where}; is another program using it?")
            time.sleep(0.01)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Stop; open pages are dropped."""
        self._server.should_exit = True
        self._thread.join(5.0)


class Worker:
    """The running whole, or the roles of it that this process has."""

    def __init__(self, settings: Settings, roles: Collection[Role] = tuple(Role)) -> None:
        """Check and load everything; nothing is open yet.

        Raises
        ------
        ConfigurationError, ModelError, RecordError
            What is wrong and how to mend it.
        """
        self.settings = settings
        self.roles = frozenset(roles)
        self.work, self.news = Bell(), Bell()
        self.owner = owner.name()
        self.database = database(settings)
        self.database.check()
        self.spool = LocalSpool(settings.spool.path, watermark_bytes=settings.spool.watermark_mib << 20)
        self.instances, self.jobs = Instances(self.database), Jobs(self.database)
        self.studies, self.outbox = Studies(self.database), Outbox(self.database)
        self.rejections, self.worklist = Rejections(self.database), Worklist(self.database)
        self.engine: Engine | None = None
        self.model: ModelRef | None = None
        self.listener: Listener | None = None
        self.hl7: Hl7Listener | None = None
        self.web: WebServer | None = None
        self._stops: list[Callable[[], object]] = []

    def start(self) -> None:
        """Open in the order in which nothing is promised that cannot be kept: readers first, the port last."""
        began = time.perf_counter()
        self._rescue()
        if Role.READ in self.roles:
            self._start_reading()
        if Role.DELIVER in self.roles:
            self._start_delivery()
        if Role.UPKEEP in self.roles:
            calendar = Calendar(self._duties())
            calendar.start()
            self._stops.append(calendar.stop)
        if Role.WEB in self.roles:
            self._start_web()
        if Role.RECEIVE in self.roles:
            if self.settings.hl7.enabled:
                self._start_hearing()
            self._start_listener()
        log.info("started roles=%s ms=%.0f", ",".join(sorted(self.roles)), 1000 * (time.perf_counter() - began))

    def stop(self) -> None:
        """Close in the opposite order."""
        while self._stops:
            self._stops.pop()()
        self.database.close()
        log.info("stopped")

    def _rescue(self) -> int:
        return rescue.run_once(
            self.jobs,
            self.outbox,
            now(),
            max_attempts=self.settings.reading.attempts,
            is_dead=owner.is_dead,
        )

    def _start_reading(self) -> None:
        settings = self.settings
        model = bundle(settings)
        operating_points = thresholds(settings.policy.policy(), model.card.thresholds)
        self.engine = engine(settings, model)
        self._stops.append(self.engine.close)
        self.model = ModelRef(id=model.model_id, name=model.card.name, version=model.card.version)
        reading = Reading(
            jobs=self.jobs,
            spool=self.spool,
            engine=self.engine,
            gate=settings.gate,
            policy=settings.policy.policy(),
            operating_points=operating_points,
            model=self.model,
            input_size=model.card.input_size,
            route=route(settings),
            work=self.work,
            news=self.news,
            owner=self.owner,
            rules=ReadingRules(
                lease=timedelta(seconds=settings.reading.lease_seconds), attempts=settings.reading.attempts
            ),
            clock=now,
            readers=settings.reading.workers,
        )
        reading.start()
        self._stops.append(reading.stop)

    def _start_delivery(self) -> None:
        for destination in self.settings.destinations:
            courier = Courier(
                outbox=self.outbox,
                destinations=Destinations(self.database),
                channel=channel(destination, self.settings, film=self._film, committed=self._committed),
                news=self.news,
                owner=self.owner,
                rules=delivery_rules(destination),
                clock=now,
            )
            courier.start()
            self._stops.append(courier.stop)

    def _start_web(self) -> None:
        web = self.settings.web
        hosts = list(web.hosts)
        if not _is_loopback(web.host):
            log.warning("web-open host=%s mend=put-a-proxy-with-log-in-before-it", web.host)
            hosts.append(web.host)
        app = create_app(
            worklist=self.worklist, rejections=self.rejections, outbox=self.outbox, status=self.status, hosts=hosts
        )
        self.web = WebServer(app, self.settings.web.host, self.settings.web.port)
        self.web.start()
        self._stops.append(self.web.stop)

    def _start_hearing(self) -> None:
        hearing = Hearing(
            context=Context(self.database),
            rejections=self.rejections,
            rules=hl7_rules(self.settings),
            route=route(self.settings),
            work=self.work,
            news=self.news,
            clock=now,
        )
        self.hl7 = Hl7Listener(hl7_config(self.settings), hearing, self.rejections.add)
        self.hl7.start()
        self._stops.append(self.hl7.stop)

    def _start_listener(self) -> None:
        windows = dicom_windows(self.settings, ReadingList(self.database))
        self.listener = Listener(
            listener_config(self.settings),
            usable_transfer_syntaxes(),
            self.spool,
            Intake(self.instances, self.work, now),
            self.rejections.add,
            extra_handlers=[*self._services(), *step_handlers(windows), *self._commitment()],
            windows=windows,
        )
        self.listener.start()
        self._stops.append(self.listener.stop)

    def _services(self) -> list[ExtraHandler]:
        """What is spoken on the port besides C-ECHO and C-STORE."""
        if not _asked(self.settings):
            return []
        return [ExtraHandler(frozenset({commitment.SOP_CLASS}), commitment.EVENT, commitment.Reports(self._committed))]

    def _commitment(self) -> list[ExtraHandler]:
        """Who answers a modality that asks whether we keep its films."""
        settings = self.settings.commitment
        if not settings.offered:
            return []
        report_to = {to.ae_title: commitment_scp.ReportTo(host=to.host, port=to.port) for to in settings.report_to}
        scp = commitment_scp.CommitmentScp(Kept(self.database).of, self.spool, report_to, timeout=settings.timeout)
        scp.start()
        self._stops.append(scp.stop)
        return [ExtraHandler(frozenset({commitment_scp.SOP_CLASS}), commitment_scp.EVENT, scp)]

    def _committed(self, answer: commitment.Answer) -> int:
        """A PACS answers for itself; one that calls under a title that is nobody's, for all that were asked."""
        asked = _asked(self.settings)
        named = [d for d in asked if d.ae_title == answer.ae_title] or asked
        return self.outbox.committed(
            answer.object_id,
            kept=answer.kept,
            words=answer.words,
            now=now(),
            destinations=[d.name for d in named],
        )

    def _film(self, instance: InstanceRef) -> GrayImage | None:
        """A film as displayed; None when its bytes were let go, or it would not be read today."""
        path = self.instances.path_of(instance.study_uid, instance.sop_uid)
        if path is None:
            return None
        try:
            return read_film(self.spool.path_of(path), self.settings.gate).pixels
        except (SpoolError, NotAnalysable, OSError):
            return None

    def _duties(self) -> list[Duty]:
        settings = self.settings
        quiet = timedelta(seconds=settings.reading.quiet_seconds)
        keep = timedelta(days=settings.spool.keep_days)
        return [
            Duty("rescue", rescue.EVERY, self._rescue),
            Duty("finalise", finalise.EVERY, lambda: finalise.run_once(self.studies, now(), quiet=quiet)),
            Duty("retention", retention.EVERY, lambda: retention.run_once(self.studies, self.spool, now(), keep=keep)),
            Duty("sweep", timedelta(days=1), lambda: self.spool.sweep(self.instances.paths())),
            Duty("digest", digest.EVERY, lambda: digest.run_once(self.rejections, now()), at_start=False),
            *self._alarm(),
        ]

    def _alarm(self) -> list[Duty]:
        alarms = self.settings.alarms
        mail = mail_of(alarms)
        if mail is None:
            return []
        told, after = alarm.Told(alarms.state), timedelta(seconds=alarms.after_seconds)
        return [Duty("alarm", alarm.EVERY, lambda: alarm.run_once(self.outbox, told, mail.send, now(), after=after))]

    def status(self) -> Mapping[str, object]:
        """For the page and `/readyz`: the model in service, the listener, free space."""
        return {
            "roles": sorted(self.roles),
            "model": None if self.model is None else asdict(self.model),
            "dicom": None if self.listener is None else f"{self.settings.dicom.ae_title}@{self.listener.port}",
            "associations": 0 if self.listener is None else self.listener.active_associations,
            "spool_free_bytes": self.spool.free_bytes(),
        }
