"""The queue of films, and door 2: what was read and whom to tell leave in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, exists, insert, select, update

from schemas.decision import StudyVerdict, Urgency
from schemas.errors import LeaseLost
from schemas.flag import FilmResult, Withdrawal
from schemas.identity import InstanceRef, StudyContext
from schemas.lifecycle import JobState, StudyState
from schemas.not_analysed import NotAnalysed
from schemas.outcome import FilmOutcome, ModelRef, NotRead, Read, Route
from schemas.tables import Job as JobRow
from schemas.tables import PredictionRow, Study
from worker.record.database import Database
from worker.record.revisions import STUDY, films_of, instance_of, revise
from worker.record.rows import by_study, lapsed, one_of, settle_studies, word
from worker.record.second_look import compare_again
from worker.record.shapes import clean, reason_to_json, reasons_from_json, scanner_to_json
from worker.record.studies import model_of

Settle = Callable[[tuple[FilmResult, ...]], StudyVerdict]

_CLAIMABLE: Final = (
    select(
        JobRow.id,
        JobRow.sop_uid,
        JobRow.series_uid,
        JobRow.sop_class,
        JobRow.transfer_syntax,
        JobRow.path,
        JobRow.version,
        JobRow.attempts,
        JobRow.order_urgency,
        JobRow.received_at,
        JobRow.called_ae,
        Study.study_uid,
        Study.context,
    )
    .join(Study, Study.id == JobRow.study_id)
    .where(JobRow.state == word(JobState.SPOOLED), JobRow.not_before <= bindparam("now"))
    .order_by(JobRow.order_urgency.desc(), JobRow.received_at, JobRow.id)
    .limit(bindparam("limit"))
    .with_for_update(of=JobRow, skip_locked=True)
)
_CLAIM: Final = (
    update(JobRow)
    .where(JobRow.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=word(JobState.READING),
        attempts=JobRow.attempts + 1,
        lease_owner=bindparam("worker"),
        lease_until=bindparam("until"),
        claimed_at=bindparam("now"),
    )
)
# Whoever has a lease is reading: the state need not be asked, and must not, lest PostgreSQL looks through the queue for
# the one row whose key it was given.
_HELD: Final = JobRow.lease_owner == bindparam("worker")
_HEARTBEAT: Final = (
    update(JobRow)
    .where(JobRow.id.in_(bindparam("ids", expanding=True)), _HELD)
    .values(lease_until=bindparam("until"))
    .returning(JobRow.id)
)
_MINE: Final = (JobRow.id == bindparam("job_id"), JobRow.attempts == bindparam("attempt"), _HELD)
_NO_LEASE: Final = {"lease_owner": None, "lease_until": None}
_RELEASE: Final = (
    update(JobRow)
    .where(*_MINE)
    .values(
        state=word(JobState.SPOOLED), not_before=bindparam("b_not_before"), detail=bindparam("b_detail"), **_NO_LEASE
    )
)
_OWNERS: Final = select(JobRow.lease_owner).where(JobRow.state == word(JobState.READING)).distinct()

_STUDY: Final = STUDY.where(Study.study_uid == bindparam("study_uid"))
_READ: Final = (
    update(JobRow)
    .where(*_MINE)
    .values(
        state=word(JobState.READ),
        reading=JobRow.reading + 1,
        not_analysed=None,
        detail="",
        concluded_at=bindparam("now"),
        scanner=bindparam("made_with"),
        **_NO_LEASE,
    )
    .returning(JobRow.reading)
)
_NOT_READ: Final = (
    update(JobRow)
    .where(*_MINE)
    .values(
        state=bindparam("to"),
        not_analysed=bindparam("code"),
        detail=bindparam("because"),
        concluded_at=bindparam("now"),
        scanner=bindparam("made_with"),
        **_NO_LEASE,
    )
)
_PREDICTION: Final = insert(PredictionRow)
_STILL_OPEN: Final = select(exists().where(JobRow.study_id == bindparam("study_id"), JobRow.concluded_at.is_(None)))
_CONCLUDED: Final = (
    update(Study).where(Study.id == bindparam("study_id")).values(state=bindparam("to"), changes=Study.changes + 1)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A film that this worker holds until its lease lapses."""

    id: int
    instance: InstanceRef
    path: str  # relative to the spool's root
    version: int
    attempt: int  # from 1
    order_urgency: Urgency
    received_at: datetime
    called_ae: str
    context: StudyContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Concluded:
    """Where the study stands after a film: its urgency, and the new revision if there is something new to tell."""

    urgency: Urgency
    revision: int | None


class Jobs:
    """The queue of films."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Job]:
        """Take up to `limit` films that are due: by the order's urgency, then in order of arrival."""

        def work(connection: Connection) -> list[Job]:
            rows = connection.execute(_CLAIMABLE, {"now": now, "limit": limit}).all()
            if rows:
                connection.execute(
                    _CLAIM, {"ids": [r.id for r in rows], "worker": worker, "until": now + lease, "now": now}
                )
            return [_job(row) for row in rows]

        return self._database.write(work)

    def heartbeat(self, ids: Collection[int], worker: str, lease: timedelta, now: datetime) -> set[int]:
        """Hold on to films for another `lease`; returns those that are still this worker's."""
        values = {"ids": list(ids), "worker": worker, "until": now + lease}
        return self._database.write(lambda connection: set(connection.scalars(_HEARTBEAT, values)))

    def release(self, job: Job, worker: str, not_before: datetime, detail: str) -> None:
        """Give a film back to be read again, not before `not_before`. Raises `LeaseLost`."""
        values = {**_mine(job, worker), "b_not_before": not_before, "b_detail": clean(detail)}

        def work(connection: Connection) -> None:
            if connection.execute(_RELEASE, values).rowcount != 1:
                raise LeaseLost(f"job {job.id}")

        self._database.write(work)

    def owners(self) -> set[str]:
        """Who holds films now."""
        return self._database.read(lambda connection: {str(o) for o in connection.scalars(_OWNERS)})

    def rescue(self, now: datetime, max_attempts: int, dead: Collection[str] = ()) -> int:
        """Give back films whose lease lapsed or whose holder is among the `dead`; returns how many.

        One that was held `max_attempts` times is set aside as failed: it may be what kills its readers.
        """
        over = (JobRow.state == word(JobState.READING), lapsed(JobRow, now, dead))
        back = {"state": JobState.SPOOLED.value, "not_before": now, **_NO_LEASE}
        failed = {
            "state": JobState.FAILED.value,
            "not_analysed": NotAnalysed.MODEL_FAILED.value,
            "detail": "its reader died",
            "concluded_at": now,
            **_NO_LEASE,
        }

        def work(connection: Connection, studies: list[int]) -> int:
            here = (JobRow.study_id.in_(studies), *over)
            count = 0
            for values, which in ((failed, JobRow.attempts >= max_attempts), (back, JobRow.attempts < max_attempts)):
                count += connection.execute(update(JobRow).where(*here, which).values(**values)).rowcount
            settle_studies(connection, studies)
            return count

        return by_study(self._database, select(JobRow.study_id).where(*over), work)

    def requeue(self, study_uid: str | None, states: Collection[JobState], now: datetime) -> int:
        """Put films of one study, or of all, that are in one of `states` back into the queue; returns how many.

        Films whose bytes were let go stay as they are. A result counts until the next one takes its place.
        """
        states = set(states) - {JobState.SPOOLED, JobState.READING}
        which = [one_of(JobRow.state, sorted(states)), JobRow.path.is_not(None), JobRow.current]
        if study_uid is not None:
            which.append(JobRow.study_id == select(Study.id).where(Study.study_uid == study_uid).scalar_subquery())

        def work(connection: Connection, studies: list[int]) -> int:
            values = {"attempts": 0, "not_before": now, "not_analysed": None, "detail": "", "concluded_at": None}
            statement = update(JobRow).where(JobRow.study_id.in_(studies), *which)
            count = connection.execute(statement.values(state=JobState.SPOOLED.value, **values)).rowcount
            settle_studies(connection, studies)
            return count

        return by_study(self._database, select(JobRow.study_id).where(*which), work) if states else 0

    def conclude(
        self,
        job: Job,
        worker: str,
        outcome: FilmOutcome,
        settle: Settle,
        route: Route,
        model: ModelRef,
        now: datetime,
    ) -> Concluded:
        """Record what became of a film, settle its study, and queue what is new for whoever is to hear of it.

        `settle` is given every film of the study that has a result: the version that counts of each, and readings
        of earlier versions, because what one of them showed is not unsaid by its successor. The study's urgency
        only rises; where `settle` says less than before, the reasons that raised it stand. A revision is written
        when a film of the study was read and there is something new to tell, in the name of the `model` that read it;
        `route` says who hears of it.

        Raises
        ------
        LeaseLost
            The job belongs to somebody else now; nothing was recorded.
        """

        def work(connection: Connection) -> Concluded:
            study = connection.execute(_STUDY, {"study_uid": job.instance.study_uid}).one()
            _record(connection, job, worker, outcome, now)
            still_open = connection.execute(_STILL_OPEN, {"study_id": study.id}).scalar_one()
            state = StudyState.RECEIVING if still_open else StudyState.READ
            urgency, revision = Urgency(study.urgency), None
            if study.withdrawn == Withdrawal.REPORTED:
                compare_again(connection, study.id)
            elif isinstance(outcome, Read) or study.revision:
                films, earlier, called_ae = films_of(connection, study)
                verdict = settle((*films, *earlier))
                urgency = max(urgency, verdict.urgency)
                revision = revise(
                    connection,
                    study,
                    urgency=urgency,
                    reasons=verdict.reasons if verdict.urgency == urgency else reasons_from_json(study.reasons),
                    films=films,
                    called_ae=called_ae,
                    # what was not read says nothing: the word that stands is that of the model that gave it
                    model=model if isinstance(outcome, Read) else model_of(connection, study),
                    route=route,
                    now=now,
                    state=state,
                )
            if revision is None:
                connection.execute(_CONCLUDED, {"study_id": study.id, "to": state.value})
            return Concluded(urgency=urgency, revision=revision)

        return self._database.write(work)


def _job(row: Any) -> Job:
    return Job(
        id=row.id,
        instance=instance_of(row, row.study_uid),
        path=row.path,
        version=row.version,
        attempt=row.attempts + 1,
        order_urgency=Urgency(row.order_urgency),
        received_at=row.received_at,
        called_ae=row.called_ae,
        context=StudyContext(**row.context),
    )


def _mine(job: Job, worker: str) -> dict[str, Any]:
    return {"job_id": job.id, "attempt": job.attempt, "worker": worker}


def _record(connection: Connection, job: Job, worker: str, outcome: FilmOutcome, now: datetime) -> None:
    """The result of one film, if the job is still this worker's."""
    made_with = None if outcome.scanner is None else scanner_to_json(outcome.scanner)
    mine = {**_mine(job, worker), "now": now, "made_with": made_with}
    if isinstance(outcome, NotRead):
        to = JobState.FAILED if outcome.code is NotAnalysed.MODEL_FAILED else JobState.NOT_ANALYSED
        values = {**mine, "to": to.value, "code": outcome.code.value, "because": clean(outcome.detail)}
        if connection.execute(_NOT_READ, values).rowcount != 1:
            raise LeaseLost(f"job {job.id}")
        return
    reading = connection.execute(_READ, mine).scalar_one_or_none()
    if reading is None:
        raise LeaseLost(f"job {job.id}")
    prediction, decision = outcome.prediction, outcome.decision
    connection.execute(
        _PREDICTION,
        {
            "job_id": job.id,
            "reading": reading,
            "model_id": prediction.model_id,
            "binary": prediction.binary,
            "findings": dict(prediction.findings),
            "thresholds": dict(decision.thresholds),
            "consistency": decision.consistency.value,
            "urgency": int(decision.urgency),
            "reasons": [reason_to_json(r) for r in decision.reasons],
            "remarks": list(outcome.remarks),
            "timings_ms": dict(prediction.timings_ms),
            "concluded_at": now,
            "policy": decision.policy,
        },
    )
