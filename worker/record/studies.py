"""Studies as a whole: settled after a quiet period, and their bytes let go when retention says so."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, exists, select, update
from sqlalchemy.orm import aliased

from schemas.lifecycle import StudyState
from schemas.tables import Job, Study
from worker.record.database import Database
from worker.record.rows import lock_studies, word

_twin = aliased(Job)
_twins_study = aliased(Study)
_FINALISE: Final = (
    update(Study)
    .where(
        Study.closed.is_(False),
        Study.state == word(StudyState.READ),
        Study.last_received_at <= bindparam("quiet_since"),
    )
    .values(state=word(StudyState.FINAL), changes=Study.changes + 1)
)
# A path that a row of a younger or unsettled study points to as well is not ours to remove.
_PURGEABLE: Final = (
    select(Job.id, Job.path)
    .join(Study, Study.id == Job.study_id)
    .where(
        Study.closed.is_(False),
        Study.state == word(StudyState.FINAL),
        Study.last_received_at < bindparam("before"),
        Job.path.is_not(None),
        ~exists()
        .where(_twin.path == Job.path, _twins_study.id == _twin.study_id)
        .where((_twins_study.state != word(StudyState.FINAL)) | (_twins_study.last_received_at >= bindparam("before"))),
    )
    .order_by(Study.last_received_at, Job.id)
    .limit(bindparam("limit"))
)


class Studies:
    """Studies as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def finalise(self, quiet: timedelta, now: datetime) -> int:
        """Every film settled and none arrived for `quiet`: the study is final until a late film; returns how many."""
        values = {"quiet_since": now - quiet}
        return self._database.write(lambda connection: connection.execute(_FINALISE, values).rowcount)

    def purgeable(self, older_than: datetime, limit: int) -> list[tuple[int, str]]:
        """Job and path of up to `limit` files of final studies whose last film arrived before `older_than`."""
        values = {"before": older_than, "limit": limit}
        return self._database.read(
            lambda connection: [(row.id, str(row.path)) for row in connection.execute(_PURGEABLE, values)]
        )

    def purged(self, job_ids: Collection[int]) -> None:
        """Their files are gone. A final study that keeps no file leaves the worklist; its results stay."""

        def work(connection: Connection) -> None:
            studies = connection.scalars(select(Job.study_id).where(Job.id.in_(job_ids)).distinct()).all()
            lock_studies(connection, studies)
            connection.execute(update(Job).where(Job.id.in_(job_ids)).values(path=None))
            empty = ~exists().where(Job.study_id == Study.id, Job.path.is_not(None))
            connection.execute(
                update(Study)
                .where(Study.id.in_(studies), Study.state == word(StudyState.FINAL), empty)
                .values(closed=True, changes=Study.changes + 1)
            )

        self._database.write(work)
