"""The only place that names concrete classes: from settings to a running worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from importlib import resources
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from schemas.errors import ConfigurationError
from schemas.outcome import ModelRef, Route
from worker.corridor import owner
from worker.corridor.bell import Bell
from worker.corridor.delivery import Courier, DeliveryRules
from worker.corridor.intake import Intake
from worker.corridor.reading import Reading, ReadingRules
from worker.decide.policy import thresholds
from worker.decide.routing import recipients
from worker.decode.selftest import usable_transfer_syntaxes
from worker.infer.bundle import Bundle, open_bundle
from worker.infer.choose import choose_runtime, load_runtime
from worker.infer.engine import Engine
from worker.notify.association import Peer
from worker.notify.dicom_sr import DicomSr
from worker.notify.paper import Paper
from worker.ports import Channel, Runtime
from worker.receive.access import Caller, LocalAE
from worker.receive.listener import Listener, ListenerConfig
from worker.record.database import Database
from worker.record.instances import Instances
from worker.record.jobs import Jobs
from worker.record.outbox import Outbox
from worker.record.rejections import Rejections
from worker.record.studies import Studies
from worker.record.worklist import Worklist
from worker.settings import Destination, DicomDestination, PaperDestination, Settings, SrDestination
from worker.spool.local import LocalSpool
from worker.tensor import recipe
from worker.upkeep import digest, finalise, rescue, retention
from worker.upkeep.calendar import Calendar, Duty
from worker.worklist.web.app import create_app

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


def channel(destination: Destination, settings: Settings) -> Channel:
    """The channel of one `[[destinations]]` entry."""
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
            return DicomSr(name=name, peer=peer, timeout=timeout)
        case PaperDestination():
            return Paper(name=name, folder=destination.folder)
    raise ConfigurationError(f"destinations: {name}: kind {destination.kind} is not to be had yet")


def route(settings: Settings) -> Route:
    """Who hears of what, by `[[destinations]]`."""
    return partial(recipients, [destination.audience() for destination in settings.destinations])


def delivery_rules(destination: Destination) -> DeliveryRules:
    """The lease outlasts the slowest delivery that succeeds, or it would be sent again for ever.

    That is a kept association that stalls, then connecting, negotiating and storing, each within `timeout`.
    """
    rules = DeliveryRules()
    return replace(rules, lease=max(rules.lease, timedelta(seconds=5 * destination.timeout)))


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
                channel=channel(destination, self.settings),
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

    def _start_listener(self) -> None:
        self.listener = Listener(
            listener_config(self.settings),
            usable_transfer_syntaxes(),
            self.spool,
            Intake(self.instances, self.work, now),
            self.rejections.add,
        )
        self.listener.start()
        self._stops.append(self.listener.stop)

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
        ]

    def status(self) -> Mapping[str, object]:
        """For the page and `/readyz`: the model in service, the listener, free space."""
        return {
            "roles": sorted(self.roles),
            "model": None if self.model is None else asdict(self.model),
            "dicom": None if self.listener is None else f"{self.settings.dicom.ae_title}@{self.listener.port}",
            "associations": 0 if self.listener is None else self.listener.active_associations,
            "spool_free_bytes": self.spool.free_bytes(),
        }
