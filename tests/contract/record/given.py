"""Films, senders and outcomes by number: what the record is told in these tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from schemas.decision import Consistency, Decision, Reason, StudyVerdict, Urgency
from schemas.findings import LABELS, Label
from schemas.flag import FilmResult
from schemas.identity import InstanceRef, Sender, StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.outcome import Audience, ModelRef, NotRead, Read
from schemas.prediction import Prediction
from worker.decide.routing import recipients
from worker.ports import SpooledFile
from worker.record.database import Database
from worker.record.instances import Instances, Received
from worker.record.jobs import Concluded, Job, Jobs
from worker.record.outbox import Delivery, Outbox
from worker.record.rejections import Rejections
from worker.record.studies import Studies
from worker.record.worklist import Worklist

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SENDER = Sender(calling_ae="ROOM1", called_ae="HILUM", address="192.0.2.7")
MODEL = ModelRef(id="00112233aabbccdd", name="starter", version="1.0")
PACS = Audience(name="pacs", when="analysed")
RIS = Audience(name="ris", when="flagged")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def instance(film: int = 1, study: int = 1) -> InstanceRef:
    return InstanceRef(
        study_uid=f"1.2.3.{study}",
        series_uid=f"1.2.3.{study}.1",
        sop_uid=f"1.2.3.{study}.1.{film}",
        sop_class="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax="1.2.840.10008.1.2.1",
    )


def file(content: str) -> SpooledFile:
    return SpooledFile(path=f"{content}.dcm", size=1000, sha256=f"sha-{content}")


def reason(probability: float, label: Label = Label.PNEUMOTHORAX, urgency: Urgency = Urgency.STAT) -> Reason:
    return Reason(finding=label.value, probability=probability, threshold=0.62, urgency=urgency)


def read(probability: float = 0.1, urgency: Urgency = Urgency.STAT) -> Read:
    """A film with this probability of pneumothorax, raised to `urgency` from 0.62 on."""
    raised = probability >= 0.62
    return Read(
        prediction=Prediction(
            model_id=MODEL.id,
            binary=probability,
            findings={label: probability if label is Label.PNEUMOTHORAX else 0.01 for label in LABELS},
            timings_ms={"decode": 12.5, "infer": 30.25},
        ),
        decision=Decision(
            urgency=urgency if raised else Urgency.ROUTINE,
            reasons=(reason(probability, urgency=urgency),) if raised else (),
            consistency=Consistency.AGREE,
            thresholds={"Pneumothorax": 0.62},
        ),
        remarks=("polarity-corrected",),
    )


def not_read(code: NotAnalysed = NotAnalysed.LATERAL) -> NotRead:
    return NotRead(code=code, detail="ViewPosition LL")


def settle(films: tuple[FilmResult, ...]) -> StudyVerdict:
    """The highest of its films, its reasons by probability."""
    reasons = sorted((r for film in films for r in film.reasons), key=lambda r: (-r.urgency, -r.probability))
    return StudyVerdict(urgency=max((r.urgency for r in reasons), default=Urgency.ROUTINE), reasons=tuple(reasons))


@dataclass(frozen=True)
class Record:
    """Every door to one database."""

    database: Database
    url: str

    @property
    def instances(self) -> Instances:
        return Instances(self.database)

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.database)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    @property
    def studies(self) -> Studies:
        return Studies(self.database)

    @property
    def worklist(self) -> Worklist:
        return Worklist(self.database)

    @property
    def rejections(self) -> Rejections:
        return Rejections(self.database)

    def receive(
        self,
        film: int = 1,
        study: int = 1,
        *,
        content: str | None = None,
        context: StudyContext | None = None,
        order: Urgency = Urgency.ROUTINE,
        at: datetime = NOW,
    ) -> Received:
        return self.instances.receive(
            instance(film, study),
            file(content or f"{study}-{film}"),
            SENDER,
            context or StudyContext(patient_id="P1", patient_name="Phantom^Chest", modality="DX"),
            order,
            at,
        )

    def claim(self, worker: str = "reader", at: datetime = NOW) -> Job:
        (job,) = self.jobs.claim(worker, 1, LEASE, at)
        return job

    def conclude(
        self,
        job: Job,
        outcome: Read | NotRead,
        *,
        worker: str = "reader",
        audiences: tuple[Audience, ...] = (PACS,),
        model: ModelRef = MODEL,
        at: datetime = NOW,
        settle: Callable[[tuple[FilmResult, ...]], StudyVerdict] = settle,
    ) -> Concluded:
        return self.jobs.conclude(job, worker, outcome, settle, partial(recipients, audiences), model, at)

    def film(
        self,
        film: int,
        study: int = 1,
        outcome: Read | NotRead | None = None,
        *,
        audiences: tuple[Audience, ...] = (PACS,),
        at: datetime = NOW,
    ) -> Concluded:
        """Received, claimed and concluded."""
        self.receive(film, study, at=at)
        return self.conclude(self.claim(at=at), outcome or read(), audiences=audiences, at=at)

    def deliver(self, destination: str = "pacs", at: datetime = NOW) -> Delivery:
        (delivery,) = self.outbox.claim(destination, "courier", 1, LEASE, at)
        return delivery
