"""A record with made-up studies, filled through the record's own doors, and the page on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas.decision import Consistency, Decision, Reason, Urgency
from schemas.errors import BundleInvalid
from schemas.findings import LABELS
from schemas.flag import Receipt, Withdrawal
from schemas.identity import InstanceRef, Sender, StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.outcome import Audience, FilmOutcome, ModelRef, NotRead, Read
from schemas.person import Role
from schemas.prediction import Prediction
from schemas.rejection import Rejection
from worker.decide.routing import recipients
from worker.decide.study import settle
from worker.ports import SpooledFile
from worker.record.agreement import ReaderAgreement
from worker.record.audit import Audit
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.drift import Drift
from worker.record.instances import Instances
from worker.record.jobs import Jobs
from worker.record.outbox import Outbox
from worker.record.pauses import Pauses
from worker.record.people import People
from worker.record.readings import Readings
from worker.record.registry import Registry
from worker.record.rejections import Rejections
from worker.record.retrainings import Retrainings
from worker.record.second_look import SecondLooks
from worker.record.shadow import Shadows
from worker.record.studies import Studies, one
from worker.record.times import Times
from worker.record.traffic import Traffic
from worker.record.training_runs import TrainingRuns
from worker.record.worklist import Worklist
from worker.upkeep.calendar import next_time
from worker.worklist.web.app import create_app
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import csrf_of, digest, new_secret
from worker.worklist.web.models_desk import ModelsDesk
from worker.worklist.web.watch_desk import WatchDesk

NOW = datetime(2026, 3, 14, 22, 10, tzinfo=UTC)
MODEL = ModelRef(id="0123456789abcdef", name="starter", version="1")
PNEUMOTHORAX = Reason(finding="Pneumothorax", probability=0.91, threshold=0.62, urgency=Urgency.STAT)
EFFUSION = Reason(finding="Effusion", probability=0.83, threshold=0.55, urgency=Urgency.URGENT)


def read(*reasons: Reason, consistency: Consistency = Consistency.AGREE) -> Read:
    """A film that was read and raised for `reasons`, or not raised. Its probabilities are easy to find in a page."""
    said = Prediction(model_id=MODEL.id, binary=0.7777, findings=dict.fromkeys(LABELS, 0.3333), timings_ms={"infer": 9})
    urgency = max((r.urgency for r in reasons), default=Urgency.ROUTINE)
    return Read(prediction=said, decision=Decision(urgency=urgency, reasons=reasons, consistency=consistency))


def not_read(code: NotAnalysed, detail: str = "") -> NotRead:
    """A film that was not analysed."""
    return NotRead(code=code, detail=detail)


def nothing_offered(bundle: str, why: str, who: str) -> str:
    """A store in which nothing is."""
    raise BundleInvalid(f"no model bundle named {bundle!r}")


@dataclass
class Ward:
    """Doors to one record; `now` moves by hand."""

    folder: Path
    now: datetime = NOW
    url: str = ""  # of another database than the folder's
    status: dict[str, Any] = field(
        default_factory=lambda: {
            "model": {"id": MODEL.id, "name": MODEL.name, "version": MODEL.version},
            "dicom": "HILUM@11112",
            "spool_free_bytes": 18.3 * 2**30,
        }
    )

    def __post_init__(self) -> None:
        self.database = Database(self.url or f"sqlite:///{self.folder / 'hilum.db'}")
        self.database.migrate()
        self.instances, self.jobs = Instances(self.database), Jobs(self.database)
        self.outbox, self.rejections = Outbox(self.database), Rejections(self.database)
        self.worklist, self.people = Worklist(self.database), People(self.database)
        self._films = 0

    def receive(
        self, study: int, name: str = "PHANTOM^ONE", *, ago: timedelta = timedelta(0), **context: str
    ) -> InstanceRef:
        """A film of study number `study` arrives."""
        self._films += 1
        instance = InstanceRef(
            study_uid=f"2.25.{study}",
            series_uid=f"2.25.{study}.1",
            sop_uid=f"2.25.{study}.1.{self._films}",
            sop_class="1.2.840.10008.5.1.4.1.1.1.1",
            transfer_syntax="1.2.840.10008.1.2.1",
        )
        given = {"patient_id": f"P{study:05}", "accession_number": f"A{study:07}", "modality": "DX"} | context
        self.instances.receive(
            instance,
            SpooledFile(path=f"{self._films}", size=1, sha256=hashlib.sha256(str(self._films).encode()).hexdigest()),
            Sender(calling_ae="ROOM1", called_ae="HILUM", address="127.0.0.1"),
            StudyContext(patient_name=name, **given),
            Urgency.ROUTINE,
            self.now - ago,
        )
        return instance

    def conclude(self, outcome: FilmOutcome, *audiences: str) -> None:
        """The film that waits longest is read."""
        (job,) = self.jobs.claim("reader", 1, timedelta(minutes=1), self.now)
        told = [Audience(name=name, when="analysed") for name in audiences or ("pacs",)]
        route, at = partial(recipients, told), job.received_at + timedelta(milliseconds=83)
        self.jobs.conclude(job, "reader", outcome, settle, route, MODEL, at)

    def deliver(self, destination: str = "pacs") -> None:
        """Everything that is due is delivered."""
        later = self.now + timedelta(seconds=1)
        for delivery in self.outbox.claim(destination, "courier", 100, timedelta(minutes=1), later):
            self.outbox.sent(
                delivery.id,
                "courier",
                Receipt(object_id="2.25.999", proof="C-STORE 0x0000"),
                delivery.flag.decided_at + timedelta(milliseconds=31),
            )

    def study(self, study: int, outcome: FilmOutcome, name: str = "PHANTOM^ONE", **options: Any) -> None:
        """One film, received and read."""
        self.receive(study, name, **options)
        self.conclude(outcome)

    def withdraw(self, study: int, why: Withdrawal) -> None:
        """The flag is taken back; whoever was told of it hears so."""
        route = partial(recipients, [Audience(name="pacs", when="analysed")])
        Studies(self.database).withdraw(one(f"2.25.{study}"), why, route, self.now + timedelta(seconds=2))

    def turn_away(self, calling_ae: str = "ROOM9", what: str = "called AE title ARCHIVE is not ours") -> None:
        """An association is refused."""
        self.rejections.add(
            Rejection(
                sender=Sender(calling_ae=calling_ae, called_ae="ARCHIVE", address="10.1.2.3"),
                what=what,
                mend="set the called AE title of the sender to HILUM",
                at=self.now,
            )
        )

    def desk(self, **options: Any) -> Desk:
        """What the page is made of."""
        return Desk(
            worklist=self.worklist,
            rejections=self.rejections,
            outbox=self.outbox,
            people=self.people,
            audit=Audit(self.database),
            readings=Readings(self.database),
            second_looks=SecondLooks(self.database),
            training=TrainingRuns(self.database),
            retrainings=Retrainings(self.database),
            next_time=next_time,
            status=lambda: self.status,
            clock=lambda: self.now,
            **{"models": self.models(), "watch": self.watch(), **options},
        )

    def models(self, enter: Callable[[str, str, str], str] = nothing_offered, **options: Any) -> ModelsDesk:
        """What the pages of the models are made of."""
        return ModelsDesk(
            registry=Registry(self.database),
            shadows=Shadows(self.database),
            offered=lambda: ["starter"],
            enter=enter,
            **options,
        )

    def watch(self, **options: Any) -> WatchDesk:
        """What the watching page is made of; counted anew each time."""
        return WatchDesk(
            times=Times(self.database),
            traffic=Traffic(self.database),
            agreement=ReaderAgreement(self.database),
            drift=Drift(self.database),
            pauses=Pauses(self.database),
            destinations=Destinations(self.database),
            outbox=self.outbox,
            **{"configured": ["pacs"], "every": timedelta(0), "slowly": timedelta(0), **options},
        )

    def app(self, **options: Any) -> FastAPI:
        """The page on this record."""
        return create_app(self.desk(**options))

    def session(self, role: Role = Role.ADMINISTRATOR, name: str = "") -> str:
        """A browser's cookie, of somebody of this role who signed in just now."""
        name = name or f"dr {role}"
        account = self.people.named(name)
        person = account.id if account is not None else self.people.add(name, role, self.now).id
        secret = new_secret()
        self.people.sign_in(person, digest(secret), self.now)
        return secret

    def client(self, role: Role = Role.ADMINISTRATOR, name: str = "", **options: Any) -> TestClient:
        """Somebody's browser. Writes carry the token of its session."""
        secret = self.session(role, name)
        client = TestClient(
            self.app(**options), base_url="http://localhost:8080", cookies={"hilum": secret}, follow_redirects=False
        )
        client.headers["X-CSRF"] = csrf_of(secret)
        return client

    def close(self) -> None:
        """Close the record."""
        self.database.close()
