"""Studies as a whole: settled after a quiet period, and their bytes let go when retention says so."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from schemas.lifecycle import StudyState
from schemas.tables import Job, Study
from worker.record.database import Database
from worker.record.rows import lock_studies, word

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
