"""How much goes through, hour by hour, and how long what waits has waited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, distinct, func, select

from schemas.lifecycle import JobState
from schemas.tables import Job, Revision
from worker.record.database import Database
from worker.record.rows import one_of

_WAITING: Final = (
    select(Job.state, func.count().label("films"), func.min(Job.received_at).label("since"))
    .where(one_of(Job.state, [JobState.SPOOLED, JobState.READING, JobState.FAILED]))
    .group_by(Job.state)
)
_CONCLUDED: Final = (
    select(Job.state, func.count().label("films"))
    .where(Job.concluded_at >= bindparam("since"), Job.concluded_at < bindparam("until"))
    .group_by(Job.state)
)
_FLAGGED: Final = select(func.count(distinct(Revision.study_id))).where(
    Revision.decided_at >= bindparam("since"),
    Revision.decided_at < bindparam("until"),
    Revision.urgency > 0,
    Revision.withdrawn.is_(None),
)
# Not "is not null": SQLite finds no index for that.
_KEPT: Final = select(func.count().label("films"), func.sum(Job.size).label("size")).where(Job.path > "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """Films between door 1 and door 2."""

    waiting: int  # nobody has taken them in hand
    in_hand: int
    failed: int  # set aside for a person
    since: datetime | None  # when the oldest that waits or is in hand came in


@dataclass(frozen=True, kw_only=True, slots=True)
class Hour:
    """What was done in the time from `begins_at` on."""

    begins_at: datetime
    read: int  # films
    not_analysed: int
    failed: int
    flagged: int  # studies that were raised, or raised further

    @property
    def films(self) -> int:
        """All that came to an end."""
        return self.read + self.not_analysed + self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What of the films is here."""

    films: int
    size: int  # bytes


class Traffic:
    """What goes through."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queue(self) -> Queue:
        """What waits now."""

        def work(connection: Connection) -> Queue:
            rows = {JobState(row.state): row for row in connection.execute(_WAITING)}
            films = {state: row.films for state, row in rows.items()}
            begun = [row.since for state, row in rows.items() if state is not JobState.FAILED]
            return Queue(
                waiting=films.get(JobState.SPOOLED, 0),
                in_hand=films.get(JobState.READING, 0),
                failed=films.get(JobState.FAILED, 0),
                since=min(begun, default=None),
            )

        return self._database.read(work)

    def hours(self, since: datetime, count: int, each: timedelta = timedelta(hours=1)) -> list[Hour]:
        """`count` spaces of time from `since` on, each as long as `each`."""

        def work(connection: Connection) -> list[Hour]:
            return [_hour(connection, since + number * each, each) for number in range(count)]

        return self._database.read(work)

    def kept(self) -> Kept:
        """Of what was received, what retention has not let go."""
        row: Any = self._database.read(lambda connection: connection.execute(_KEPT).one())
        return Kept(films=row.films, size=int(row.size or 0))


def _hour(connection: Connection, begins_at: datetime, each: timedelta) -> Hour:
    values = {"since": begins_at, "until": begins_at + each}
    films = {row.state: row.films for row in connection.execute(_CONCLUDED, values)}
    return Hour(
        begins_at=begins_at,
        read=films.get(JobState.READ, 0),
        not_analysed=films.get(JobState.NOT_ANALYSED, 0),
        failed=films.get(JobState.FAILED, 0),
        flagged=connection.execute(_FLAGGED, values).scalar_one(),
    )
