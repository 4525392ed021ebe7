"""A record with made-up studies, filled through the record's own doors, and the page on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from schemas.decision import Consistency, Decision, Reason, Urgency
from schemas.findings import LABELS
from schemas.flag import Receipt, Withdrawal
from schemas.identity import InstanceRef, Sender, StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.outcome import Audience, FilmOutcome, ModelRef, NotRead, Read
from schemas.prediction import Prediction
from schemas.rejection import Rejection
from worker.decide.routing import recipients
from worker.decide.study import settle
from worker.ports import SpooledFile
from worker.record.database import Database
from worker.record.instances import Instances
from worker.record.jobs import Jobs
from worker.record.outbox import Outbox
from worker.record.rejections import Rejections
from worker.record.studies import Studies, one
from worker.record.worklist import Worklist
from worker.worklist.web.app import create_app

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


@dataclass
class Ward:
    """Doors to one record; `now` moves by hand."""

    folder: Path
    now: datetime = NOW
    status: dict[str, Any] = field(
        default_factory=lambda: {
            "model": {"id": MODEL.id, "name": MODEL.name, "version": MODEL.version},
            "dicom": "HILUM@11112",
            "spool_free_bytes": 18.3 * 2**30,
        }
    )

    def __post_init__(self) -> None:
        self.database = Database(f"sqlite:///{self.folder / 'hilum.db'}")
        self.database.migrate()
        self.instances, self.jobs = Instances(self.database), Jobs(self.database)
        self.outbox, self.rejections = Outbox(self.database), Rejections(self.database)
        self.worklist = Worklist(self.database)
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

    def app(self, **options: Any) -> FastAPI:
        """The page on this record."""
        return create_app(
            worklist=self.worklist,
            rejections=self.rejections,
            outbox=self.outbox,
            status=lambda: self.status,
            clock=lambda: self.now,
            **options,
        )

    def close(self) -> None:
        """Close the record."""
        self.database.close()
