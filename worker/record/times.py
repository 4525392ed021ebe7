"""Time to flag, as the rows have it: from the last byte of a film to the proof that its flag has arrived.

    received ─► readable ─► inferred ─► decided ─► sent ─► proven      by one clock, or clocks that are kept in step

Counted are flags that a film's first reading gave: one that was read again was not waited for. Rows are read some at a
time, and kept as counts in classes one percent wide, so that a year of them needs no more memory than a day.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from schemas.context import Verdict
from schemas.lifecycle import JobState
from schemas.tables import Job, OutboxRow, PredictionRow, ReportRow, Revision, Study
from worker.record.database import Database
from worker.record.rows import word

CHUNK: Final = 2000  # rows in one look
_STEP: Final = math.log(1.01)  # width of a class
_LEAST: Final = 1e-4  # seconds; the first class holds what is shorter


class Stage(StrEnum):
    """What is waited for, each time from the last byte."""

    READABLE = "readable"  # pixels as a radiologist sees them
    INFERRED = "inferred"
    DECIDED = "decided"
    SENT = "sent"
    PROVEN = "proven"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlagTimes:
    """One flag at one destination."""

    destination: str
    received_at: datetime
    readable_at: datetime | None  # None: the film was read again since, which overwrote when it was taken in hand
    inferred_at: datetime | None
    decided_at: datetime
    sent_at: datetime | None
    proven_at: datetime | None

    def waited(self) -> dict[Stage, float]:
        """Seconds from the last byte; what has not come yet is left out."""
        moments = {
            Stage.READABLE: self.readable_at,
            Stage.INFERRED: self.inferred_at,
            Stage.DECIDED: self.decided_at,
            Stage.SENT: self.sent_at,
            Stage.PROVEN: self.proven_at,
        }
        return {s: (at - self.received_at).total_seconds() for s, at in moments.items() if at is not None}


@dataclass(slots=True)
class Spread:
    """How long something took: counted in classes, from which percentiles are read to one percent."""

    classes: Counter[int] = field(default_factory=Counter)
    count: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.classes[max(0, math.ceil(math.log(max(seconds, _LEAST) / _LEAST) / _STEP))] += 1
        self.count += 1

    def percentile(self, percent: float) -> float | None:
        """Seconds within which `percent` of them came, at most one percent too many; None without any."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for number in sorted(self.classes):
            seen += self.classes[number]
            if seen >= wanted:
                return float(_LEAST * math.exp(number * _STEP))
        return None


_FLAGS: Final = (
    select(
        OutboxRow.id,
        OutboxRow.destination,
        OutboxRow.sent_at,
        OutboxRow.proven_at,
        Revision.decided_at,
        Job.received_at,
        Job.claimed_at,
        PredictionRow.timings_ms,
    )
    .join(Revision, Revision.id == OutboxRow.revision_id)
    .join(Job, Job.study_id == OutboxRow.study_id)
    # What a film said and the revision that it gave have the same time: they are one transaction.
    .join(PredictionRow, (PredictionRow.job_id == Job.id) & (PredictionRow.concluded_at == Revision.decided_at))
    .where(
        PredictionRow.reading == 1,
        Revision.withdrawn.is_(None),
        OutboxRow.id > bindparam("after"),
        OutboxRow.created_at >= bindparam("since"),
        OutboxRow.created_at < bindparam("until"),
    )
    .order_by(OutboxRow.id, Job.id)
    .limit(bindparam("limit"))
)
# Where to begin: an index has the times, and the rows in order of their number are all that is read from there.
_FIRST: Final = select(func.min(OutboxRow.id)).where(OutboxRow.created_at >= bindparam("since"))
_ARRIVALS: Final = select(func.count(), func.min(Study.received_at), func.max(Study.received_at)).where(
    Study.received_at >= bindparam("since"), Study.received_at < bindparam("until")
)
_REPORTED: Final = (
    select(ReportRow.verdict, ReportRow.model_verdict, func.count().label("studies"))
    .where(
        ReportRow.verdict.is_not(None),
        ReportRow.model_verdict.is_not(None),
        ReportRow.said_at >= bindparam("since"),
        ReportRow.said_at < bindparam("until"),
    )
    .group_by(ReportRow.verdict, ReportRow.model_verdict)
)
_READ: Final = select(func.count()).where(
    Job.state == word(JobState.READ), Job.concluded_at >= bindparam("since"), Job.concluded_at < bindparam("until")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """How busy it was."""

    studies: int
    first_at: datetime | None
    last_at: datetime | None
    films_read: int

    @property
    def per_minute(self) -> float | None:
        """Studies; None where there are too few to say."""
        if self.first_at is None or self.last_at is None or self.last_at <= self.first_at:
            return None
        return (self.studies - 1) / ((self.last_at - self.first_at).total_seconds() / 60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Studies by what their signed report says, which counts as the truth, and what the model said before."""

    both: int
    report_only: int
    model_only: int
    neither: int

    @property
    def sensitivity(self) -> float | None:
        """None without a positive report."""
        return self.both / (self.both + self.report_only) if self.both + self.report_only else None

    @property
    def specificity(self) -> float | None:
        """None without a negative report."""
        return self.neither / (self.neither + self.model_only) if self.neither + self.model_only else None

    @property
    def prevalence(self) -> float | None:
        """Share of positive reports; None without any."""
        studies = self.both + self.report_only + self.model_only + self.neither
        return (self.both + self.report_only) / studies if studies else None


class Times:
    """What the rows say of time, and of how busy and how right it was in that time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def flags(self, since: datetime, until: datetime) -> Iterator[FlagTimes]:
        """Flags decided in [since, until), in the order in which they were queued."""
        values = {"since": since, "until": until, "limit": CHUNK}
        first = self._database.read(lambda connection: connection.scalar(_FIRST, {"since": since}))
        if first is None:
            return
        after = first - 1
        while True:
            rows = self._database.read(partial(_rows, values=values | {"after": after}))
            for row in _once_each(rows):
                yield _times(row)
            if len(rows) < CHUNK:
                return
            after = rows[-1].id

    def spreads(
        self, since: datetime, until: datetime, group: Callable[[FlagTimes], str]
    ) -> dict[str, dict[Stage, Spread]]:
        """How long each stage took, by `group`."""
        spreads: dict[str, dict[Stage, Spread]] = {}
        for flag in self.flags(since, until):
            stages = spreads.setdefault(group(flag), {stage: Spread() for stage in Stage})
            for stage, seconds in flag.waited().items():
                stages[stage].add(seconds)
        return dict(sorted(spreads.items()))

    def arrivals(self, since: datetime, until: datetime) -> Arrivals:
        """Studies whose first film came in [since, until), and films that were read in it."""
        values = {"since": since, "until": until}

        def work(connection: Connection) -> Arrivals:
            studies, first, last = connection.execute(_ARRIVALS, values).one()
            read = connection.execute(_READ, values).scalar_one()
            return Arrivals(studies=studies, first_at=first, last_at=last, films_read=read)

        return self._database.read(work)

    def agreement(self, since: datetime, until: datetime) -> Agreement:
        """Of the reports that were signed in [since, until) and say of their study what the model was asked."""
        values = {"since": since, "until": until}
        rows = self._database.read(lambda connection: connection.execute(_REPORTED, values).all())
        studies = {(Verdict(row.verdict), Verdict(row.model_verdict)): row.studies for row in rows}
        return Agreement(
            both=studies.get((Verdict.POSITIVE, Verdict.POSITIVE), 0),
            report_only=studies.get((Verdict.POSITIVE, Verdict.NEGATIVE), 0),
            model_only=studies.get((Verdict.NEGATIVE, Verdict.POSITIVE), 0),
            neither=studies.get((Verdict.NEGATIVE, Verdict.NEGATIVE), 0),
        )


def _rows(connection: Connection, values: Mapping[str, Any]) -> Sequence[Any]:
    return connection.execute(_FLAGS, values).all()


def _once_each(rows: Iterable[Any]) -> Iterator[Any]:
    """Of two films that were concluded in the same microsecond the first."""
    last = 0
    for row in rows:
        if row.id != last:
            yield row
        last = row.id


def _times(row: Any) -> FlagTimes:
    readable = inferred = None
    if row.claimed_at is not None and row.claimed_at <= row.decided_at:
        timings = row.timings_ms
        readable = row.claimed_at + timedelta(milliseconds=timings.get("decode", 0.0))
        inferred = row.claimed_at + timedelta(milliseconds=sum(timings.values()))
    return FlagTimes(
        destination=row.destination,
        received_at=row.received_at,
        readable_at=readable,
        inferred_at=inferred,
        decided_at=row.decided_at,
        sent_at=row.sent_at,
        proven_at=row.proven_at,
    )
