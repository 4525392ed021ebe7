"""Studies as a whole: settled after a quiet period, and their bytes let go when retention says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, exists, func, select, update

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.lifecycle import StudyState
from schemas.outcome import ModelRef, Route
from schemas.tables import Job, PredictionRow, Revision, Study
from worker.record.database import Database
from worker.record.overtaken import overtake
from worker.record.revisions import STUDY, films_of, revise
from worker.record.rows import NOT_REPORTED, by_study, lock_studies, word
from worker.record.shapes import reasons_from_json

_FINALISE: Final = (
    update(Study)
    .where(
        Study.closed.is_(False),
        Study.state == word(StudyState.READ),
        Study.last_received_at <= bindparam("quiet_since"),
    )
    .values(state=word(StudyState.FINAL), changes=Study.changes + 1)
)
_OLD: Final = (
    select(Study.id)
    .where(
        Study.closed.is_(False),
        Study.state == word(StudyState.FINAL),
        Study.last_received_at < bindparam("before"),
    )
    .order_by(Study.last_received_at)
    .limit(bindparam("limit"))
)
_TO_WITHDRAW: Final = STUDY.where(
    Study.id.in_(bindparam("ids", expanding=True)), Study.revision > 0, Study.withdrawn.is_(None)
).order_by(Study.id)
_TO_TELL_AGAIN: Final = STUDY.where(Study.id == bindparam("study_id"), Study.revision > 0, *NOT_REPORTED)
_SILENCE: Final = update(Study).where(Study.id == bindparam("study_id")).values(withdrawn_at=bindparam("b_now"))
_MODEL: Final = select(Revision.model_id, Revision.model_name, Revision.model_version).where(
    Revision.study_id == bindparam("study_id"), Revision.revision == bindparam("revision")
)
_REPORTED: Final = (
    update(Study)
    .where(Study.id.in_(bindparam("ids", expanding=True)))
    # Whoever read it here saw what had come until then.
    .values(
        withdrawn=word(Withdrawal.REPORTED),
        reported_at=func.coalesce(Study.read_at, bindparam("b_now")),
        changes=Study.changes + 1,
    )
)
_FILES: Final = (
    select(Job.id, Job.path)
    .where(Job.study_id.in_(bindparam("ids", expanding=True)), Job.path.is_not(None))
    .order_by(Job.id)
    .limit(bindparam("limit"))
)
# A path that a row of a younger or unsettled study points to as well.
_NEEDED: Final = (
    select(Job.path)
    .join(Study, Study.id == Job.study_id)
    .where(
        Job.path.in_(bindparam("paths", expanding=True)),
        (Study.state != word(StudyState.FINAL)) | (Study.last_received_at >= bindparam("before")),
    )
)
_KEEPING: Final = (
    select(Job.study_id).where(Job.study_id.in_(bindparam("ids", expanding=True)), Job.path.is_not(None)).distinct()
)
_CLOSE: Final = (
    update(Study)
    .where(Study.id.in_(bindparam("ids", expanding=True)), Study.state == word(StudyState.FINAL))
    .values(closed=True, changes=Study.changes + 1)
)


def one(study_uid: str) -> Select[int]:
    """The study of this UID."""
    return select(Study.id).where(Study.study_uid == study_uid)


def raised_by(model_id: str) -> Select[int]:
    """Open studies that this model raised, and no other."""

    def raises(model: Any) -> Any:
        counts = (PredictionRow.job_id == Job.id, PredictionRow.reading == Job.reading, PredictionRow.urgency > 0)
        return exists().where(Job.study_id == Study.id, *counts, model)

    is_its, is_anothers = PredictionRow.model_id == model_id, PredictionRow.model_id != model_id
    return select(Study.id).where(Study.closed.is_(False), Study.urgency > 0, raises(is_its), ~raises(is_anothers))


def withdraw_locked(connection: Connection, ids: list[int], why: Withdrawal, route: Route, now: datetime) -> int:
    """What `Studies.withdraw` does, to studies that the caller has locked."""
    count = 0
    for study in connection.execute(_TO_WITHDRAW, {"ids": ids}).all():
        connection.execute(_SILENCE, {"study_id": study.id, "b_now": now})
        films, _, called_ae = films_of(connection, study)
        revise(
            connection,
            study,
            urgency=Urgency.ROUTINE,
            reasons=(),
            films=[replace(film, reasons=()) for film in films],
            called_ae=called_ae,
            model=model_of(connection, study),
            route=route,
            now=now,
            withdrawn=why,
        )
        count += 1
    if why is Withdrawal.REPORTED:
        connection.execute(_REPORTED, {"ids": ids, "b_now": now})
        overtake(connection, ids)
    return count


def tell_again(connection: Connection, study_id: int, route: Route, now: datetime) -> int | None:
    """A revision that says the same of the study in its corrected context, for whoever was told of it before.

    None where there is nobody to tell: nothing was said of it, it has been reported, or it is closed. Callers hold the
    lock on the study.
    """
    study = connection.execute(_TO_TELL_AGAIN, {"study_id": study_id}).one_or_none()
    if study is None:
        return None
    films, _, called_ae = films_of(connection, study)
    withdrawn = None if study.withdrawn is None else Withdrawal(study.withdrawn)
    return revise(
        connection,
        study,
        urgency=Urgency(study.urgency),
        reasons=reasons_from_json(study.reasons),
        films=films if withdrawn is None else [replace(film, reasons=()) for film in films],
        called_ae=called_ae,
        model=model_of(connection, study),
        route=lambda news, told: [name for name in route(news, told) if name in told],
        now=now,
        withdrawn=withdrawn,
        anew=True,
    )


def model_of(connection: Connection, study: Any) -> ModelRef:
    """The model that made the study's latest revision."""
    row = connection.execute(_MODEL, {"study_id": study.id, "revision": study.revision}).one()
    return ModelRef(id=row.model_id, name=row.model_name, version=row.model_version)


class Studies:
    """Studies as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def finalise(self, quiet: timedelta, now: datetime) -> int:
        """Every film settled and none arrived for `quiet`: the study is final until a late film; returns how many."""
        values = {"quiet_since": now - quiet}
        return self._database.write(lambda connection: connection.execute(_FINALISE, values).rowcount)

    def withdraw(self, which: Select[int], why: Withdrawal, route: Route, now: datetime) -> int:
        """Take back the flags of studies (see `one`, `raised_by`); returns how many.

        Each gets a revision of its own, ROUTINE and without reasons, which `route` sends to whoever was told before.
        What its films said until now raises it no more; a later film, or one that is read again, may. One that has
        been reported leaves the worklist and is not flagged any more, until a film arrives that was not reported.
        """

        def work(connection: Connection, ids: list[int]) -> int:
            still = connection.scalars(which.where(Study.id.in_(ids))).all()  # the lock was waited for
            return withdraw_locked(connection, list(still), why, route, now)

        return by_study(self._database, which, work)

    def purgeable(self, older_than: datetime, limit: int) -> list[tuple[int, str]]:
        """Job and path of up to `limit` files of final studies whose last film arrived before `older_than`."""

        def work(connection: Connection) -> list[tuple[int, str]]:
            old = connection.scalars(_OLD, {"before": older_than, "limit": limit}).all()
            files = connection.execute(_FILES, {"ids": old, "limit": limit}).all()
            paths = [file.path for file in files]
            needed = set(connection.scalars(_NEEDED, {"paths": paths, "before": older_than}))
            return [(file.id, str(file.path)) for file in files if file.path not in needed]

        return self._database.read(work)

    def purged(self, job_ids: Collection[int]) -> None:
        """Their files are gone. A final study that keeps no file leaves the worklist; its results stay."""

        def work(connection: Connection) -> None:
            studies = connection.scalars(select(Job.study_id).where(Job.id.in_(job_ids)).distinct()).all()
            lock_studies(connection, studies)
            connection.execute(update(Job).where(Job.id.in_(job_ids)).values(path=None))
            keeping = set(connection.scalars(_KEEPING, {"ids": studies}))
            connection.execute(_CLOSE, {"ids": [study for study in studies if study not in keeping]})

        self._database.write(work)
