"""The only place that names concrete classes: from settings to a running worker.

`worker.channels` and `worker.doors` are parts of it. What only one role needs is imported where that role is taken up:
a process that delivers need not load what draws the page, and a command that looks at the record neither.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from schemas.errors import NotAnalysable, SpoolError
from schemas.identity import InstanceRef
from schemas.image import GrayImage
from schemas.outcome import Route
from worker.channels import asked_to_commit, channel, delivery_rules, mail_of, warm_up
from worker.corridor import delivery, owner
from worker.corridor.bell import Bell
from worker.decide.routing import recipients
from worker.doors import dicom_windows, hl7_config, hl7_rules, listener_config, step_handlers
from worker.reading_room import NOBODY_READS, Means, ReadingRoom, engine, model_notices, models_desk
from worker.reading_room import open_live as bundle
from worker.record.context import Context
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.instances import Instances
from worker.record.jobs import Jobs
from worker.record.kept import Kept
from worker.record.outbox import Outbox
from worker.record.reading_list import ReadingList
from worker.record.readings import Readings
from worker.record.rejections import Rejections
from worker.record.studies import Studies
from worker.record.worklist import Worklist
from worker.settings import Settings
from worker.spool.local import LocalSpool
from worker.upkeep import rescue

if TYPE_CHECKING:
    from worker.notify import commitment
    from worker.receive.commitment_scp import CommitmentScp
    from worker.receive.hl7_listener import Hl7Listener
    from worker.receive.listener import ExtraHandler, Listener
    from worker.upkeep.calendar import Duty
    from worker.worklist.web.server import WebServer

# What the commands ask for, wherever on the roof it is made.
__all__ = ["Role", "Worker", "bundle", "channel", "database", "dicom_windows", "engine", "now", "route"]

log = logging.getLogger("hilum.serve")


class Role(StrEnum):
    """What a process does; `hilum serve` does all, `--only` some."""

    RECEIVE = "receive"
    READ = "read"
    DELIVER = "deliver"
    WEB = "web"
    UPKEEP = "upkeep"


class Part(Protocol):
    """What runs between `start` and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def now() -> datetime:
    """The clock that is passed in everywhere."""
    return datetime.now(UTC)


def database(settings: Settings) -> Database:
    """The database, not yet checked."""
    return Database(settings.database.url)


def route(settings: Settings) -> Route:
    """Who hears of what, by `[[destinations]]`."""
    return partial(recipients, [destination.audience() for destination in settings.destinations])


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
        self.room: ReadingRoom | None = None
        self.listener: Listener | None = None
        self.hl7: Hl7Listener | None = None
        self.web: WebServer | None = None
        self._stops: list[Callable[[], object]] = []

    def start(self) -> None:
        """Open in the order in which nothing is promised that cannot be kept: readers first, the port last.

        Everything is built before anything opens, so that what is wrong shows while nothing does.
        """
        began = time.perf_counter()
        self._rescue()
        parts = [*self._reading(), *self._delivery(), *self._upkeep(), *self._page(), *self._doors()]
        for part in parts:
            part.start()
            self._stops.append(part.stop)
        if Role.DELIVER in self.roles:
            # Not a daemon: an interpreter that ends in the middle of an import may hang.
            threading.Thread(target=warm_up, args=[self.settings], name="warm-up").start()
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
            # A reader that dies is seldom the film's fault: machines are restarted, and run out of memory.
            max_attempts=5 * self.settings.reading.attempts,
            is_dead=owner.is_dead,
        )

    def _reading(self) -> Iterator[Part]:
        if Role.READ not in self.roles:
            return
        means = Means(
            spool=self.spool,
            work=self.work,
            news=self.news,
            owner=self.owner,
            route=route(self.settings),
            clock=now,
        )
        self.room = ReadingRoom(self.settings, self.database, means)
        self.room.load()
        self._stops.append(self.room.stop)  # also where the rest cannot be built
        yield self.room

    def _delivery(self) -> Iterator[Part]:
        if Role.DELIVER not in self.roles:
            return
        yield delivery.Couriers(
            [
                delivery.Courier(
                    outbox=self.outbox,
                    destinations=Destinations(self.database),
                    channel=channel(destination, self.settings, film=self._film, committed=self._committed),
                    news=self.news,
                    owner=self.owner,
                    rules=delivery_rules(destination),
                    clock=now,
                )
                for destination in self.settings.destinations
            ]
        )

    def _upkeep(self) -> Iterator[Part]:
        if Role.UPKEEP not in self.roles:
            return
        from worker.upkeep.calendar import Calendar

        yield Calendar(self._duties())

    def _page(self) -> Iterator[Part]:
        if Role.WEB not in self.roles:
            return
        from worker.desk import desk
        from worker.film_room import FilmRoom
        from worker.policy_room import policy_desk
        from worker.watching_room import watch_desk
        from worker.worklist.web.app import create_app
        from worker.worklist.web.server import WebServer

        web = self.settings.web
        policy = policy_desk(self.settings, self.database, lambda: bundle(self.settings).card)
        models = models_desk(self.settings, self.database)
        watch = watch_desk(self.settings, self.database, self._ask)
        films = FilmRoom(
            self.instances, self.spool, self.settings.gate, lambda: None if self.room is None else self.room.live
        )
        made = desk(
            self.settings,
            self.database,
            self.status,
            original=films.original,
            activation=films.activation,
            policy=policy,
            watch=watch,
            models=models,
        )
        self.web = WebServer(create_app(made), web.host, web.port)
        yield self.web

    def _doors(self) -> Iterator[Part]:
        if Role.RECEIVE not in self.roles:
            return
        from worker.corridor.intake import Intake
        from worker.decode.selftest import usable_transfer_syntaxes
        from worker.receive.listener import Listener

        if self.settings.hl7.enabled:
            self.hl7 = self._hearing()
            yield self.hl7
        windows = dicom_windows(self.settings, ReadingList(self.database))
        services = [*self._reports(), *step_handlers(windows)]
        if self.settings.commitment.offered:
            scp, service = self._commitment()
            services.append(service)
            yield scp
        self.listener = Listener(
            listener_config(self.settings),
            usable_transfer_syntaxes(),
            self.spool,
            Intake(self.instances, self.work, now),
            self.rejections.add,
            extra_handlers=services,
            windows=windows,
        )
        yield self.listener

    def _hearing(self) -> Hl7Listener:
        from worker.corridor.context import Hearing
        from worker.receive.hl7_listener import Hl7Listener

        hearing = Hearing(
            context=Context(self.database),
            rejections=self.rejections,
            rules=hl7_rules(self.settings),
            route=route(self.settings),
            work=self.work,
            news=self.news,
            clock=now,
        )
        return Hl7Listener(hl7_config(self.settings), hearing, self.rejections.add)

    def _reports(self) -> list[ExtraHandler]:
        """Who hears, on the DICOM port, what a PACS says of the objects that it was sent."""
        if not asked_to_commit(self.settings):
            return []
        from worker.notify import commitment
        from worker.receive.listener import ExtraHandler

        return [ExtraHandler(frozenset({commitment.SOP_CLASS}), commitment.EVENT, commitment.Reports(self._committed))]

    def _commitment(self) -> tuple[CommitmentScp, ExtraHandler]:
        """Who answers a modality that asks whether we keep its films."""
        from worker.receive import commitment_scp
        from worker.receive.listener import ExtraHandler

        settings = self.settings.commitment
        report_to = {to.ae_title: commitment_scp.ReportTo(host=to.host, port=to.port) for to in settings.report_to}
        scp = commitment_scp.CommitmentScp(Kept(self.database).of, self.spool, report_to, timeout=settings.timeout)
        return scp, ExtraHandler(frozenset({commitment_scp.SOP_CLASS}), commitment_scp.EVENT, scp)

    def _ask(self, name: str) -> str:
        """Whether a destination is there; words for a person. Raises `DeliveryError`, `ConfigurationError`."""
        (destination,) = (d for d in self.settings.destinations if d.name == name)
        asked = channel(destination, self.settings)
        try:
            return asked.check()
        finally:
            asked.close()

    def _committed(self, answer: commitment.Answer) -> int:
        """A PACS answers for itself; one that calls under a title that is nobody's, for all that were asked."""
        asked = asked_to_commit(self.settings)
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
        from worker.decode.film import read_film

        path = self.instances.path_of(instance.study_uid, instance.sop_uid)
        if path is None:
            return None
        try:
            return read_film(self.spool.path_of(path), self.settings.gate).pixels
        except (SpoolError, NotAnalysable, OSError):
            return None

    def _duties(self) -> list[Duty]:
        from worker.record.people import People
        from worker.record.retrainings import Retrainings
        from worker.upkeep import digest, finalise, forget, read, retention, retrain, sessions
        from worker.upkeep.calendar import Duty, next_time

        settings = self.settings
        quiet = timedelta(seconds=settings.reading.quiet_seconds)
        keep = timedelta(days=settings.spool.keep_days)
        remember = timedelta(days=settings.hl7.keep_days)
        undo = timedelta(seconds=settings.worklist.undo_seconds)
        longest = timedelta(hours=settings.web.session_hours)
        context, readings = Context(self.database), Readings(self.database)
        retrainings = Retrainings(self.database)
        return [
            Duty("rescue", rescue.EVERY, self._rescue),
            Duty("finalise", finalise.EVERY, lambda: finalise.run_once(self.studies, now(), quiet=quiet)),
            Duty("retention", retention.EVERY, lambda: retention.run_once(self.studies, self.spool, now(), keep=keep)),
            Duty("read", read.EVERY, lambda: read.run_once(readings, route(settings), now(), undo=undo)),
            Duty("forget", forget.EVERY, lambda: forget.run_once(context, now(), keep=remember), at_start=False),
            Duty("sweep", timedelta(days=1), lambda: self.spool.sweep(self.instances.paths())),
            Duty("sessions", sessions.EVERY, lambda: sessions.run_once(People(self.database), now(), longest=longest)),
            Duty("retrain", retrain.EVERY, lambda: retrain.run_once(retrainings, now(), next_time)),
            Duty("digest", digest.EVERY, lambda: digest.run_once(self.rejections, now()), at_start=False),
            *self._alarm(),
            self._drift(),
        ]

    def _alarm(self) -> list[Duty]:
        alarms = self.settings.alarms
        mail = mail_of(alarms)
        if mail is None:
            return []
        from worker.record.pauses import Pauses
        from worker.upkeep import alarm
        from worker.upkeep.calendar import Duty

        told, after, pauses = alarm.Told(alarms.state), timedelta(seconds=alarms.after_seconds), Pauses(self.database)
        watch = partial(alarm.run_once, self.outbox, told, mail.send)
        return [Duty("alarm", alarm.EVERY, lambda: watch(now(), after=after, pause=pauses.current()))]

    def _drift(self) -> Duty:
        from worker.record.drift import Drift
        from worker.record.pauses import Pauses
        from worker.upkeep import drift
        from worker.upkeep.calendar import Duty
        from worker.watching_room import drift_rules

        mail, scanners, pauses = mail_of(self.settings.alarms), Drift(self.database), Pauses(self.database)
        watch = partial(drift.run_once, scanners, pauses, None if mail is None else mail.send)
        rules, pause = drift_rules(self.settings), self.settings.watch.drift_pauses
        return Duty("drift", drift.EVERY, lambda: watch(now(), rules=rules, pause=pause))

    def status(self) -> Mapping[str, object]:
        """For the page: the model in service, the listener, free space, and what whoever reads the list must know."""
        from worker.watching_room import notices

        free = self.spool.free_bytes()
        return {
            "roles": sorted(self.roles),
            **(NOBODY_READS if self.room is None else self.room.status()),
            "dicom": None if self.listener is None else f"{self.settings.dicom.ae_title}@{self.listener.port}",
            "associations": 0 if self.listener is None else self.listener.active_associations,
            "spool_free_bytes": free,
            "notices": [*model_notices(self.database, now()), *notices(self.settings, self.database, free, now())],
        }
