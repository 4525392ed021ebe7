"""Whether each scanner's films are as they were when the model that reads now was new to them.

A scanner is a maker, a model, a view and a bit depth, as headers have it. Its first films become its baseline; what
came lately is compared with that. Whoever knows why films have changed sets the baseline aside, and a new one is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Text, and_, bindparam, case, cast, func, insert, literal_column, select, text, update

from schemas.lifecycle import JobState
from schemas.scanner import Scanner
from schemas.tables import BaselineRow, DriftAlarmRow, Job, PredictionRow
from schemas.watching import DriftAlarm, DriftRules, Measure, Shift
from worker.record.database import Database
from worker.record.rows import one_of, word
from worker.record.shapes import clean, scanner_to_json
from worker.record.shift import BINS, Sample, sample_from_json, shifts

MOST: Final = 200  # scanners that are told apart, those with the most films; a header may say anything
_END: Final = 0.8  # of its limit, below which an alarm is over
_NEVER_BEFORE: Final = Shift(measure=Measure.NEW, value=1.0, limit=0.0)

# Both databases round halves, each in its own way; to a film on the edge of a bin that is nothing.
_BIN: Final = func.round(PredictionRow.binary * literal_column(str(BINS)) - literal_column("0.5"))
_TURNED: Final = case(
    (cast(PredictionRow.remarks, Text).like(literal_column("'%polarity-corrected%'")), literal_column("1")),
    else_=literal_column("0"),
)
_READ: Final = Job.state == word(JobState.READ)
_SAMPLES: Final = (
    select(Job.scanner, Job.state, _BIN.label("bin"), _TURNED.label("turned"), func.count().label("films"))
    .join(PredictionRow, and_(PredictionRow.job_id == Job.id, PredictionRow.reading == Job.reading), isouter=True)
    .where(
        Job.scanner.is_not(None),
        Job.concluded_at >= bindparam("since"),
        Job.concluded_at < bindparam("until"),
        one_of(Job.state, [JobState.READ, JobState.NOT_ANALYSED, JobState.FAILED]),
        (PredictionRow.model_id == bindparam("model")) | ~_READ,
    )
    .group_by(Job.scanner, Job.state, text("bin"), text("turned"))
)
_LATEST_MODEL: Final = (
    select(PredictionRow.model_id)
    .join(Job, and_(PredictionRow.job_id == Job.id, PredictionRow.reading == Job.reading))
    .where(_READ, Job.concluded_at <= bindparam("now"))
    .order_by(Job.concluded_at.desc())
    .limit(1)
)
_KNOWN: Final = select(BaselineRow).order_by(BaselineRow.id)
_ONE: Final = (
    select(BaselineRow).where(BaselineRow.id == bindparam("number"), BaselineRow.ended_at.is_(None)).with_for_update()
)
_SET_ASIDE: Final = (
    update(BaselineRow)
    .where(BaselineRow.id == bindparam("number"))
    .values(ended_at=bindparam("now"), ended_by=bindparam("who"))
)
_LEARNT: Final = (
    update(BaselineRow)
    .where(BaselineRow.id == bindparam("number"), BaselineRow.made_at.is_(None), BaselineRow.ended_at.is_(None))
    .values(sample=bindparam("films"), made_at=bindparam("now"))
)
_ALARMS: Final = select(DriftAlarmRow).order_by(DriftAlarmRow.id.desc())
_OPEN: Final = _ALARMS.where(DriftAlarmRow.ended_at.is_(None))
_BEGINS_UNTOLD: Final = _OPEN.where(DriftAlarmRow.told_at.is_(None))
_OVER_UNTOLD: Final = _ALARMS.where(
    DriftAlarmRow.ended_at.is_not(None), DriftAlarmRow.told_at.is_not(None), DriftAlarmRow.over_told_at.is_(None)
)
_ENDS: Final = update(DriftAlarmRow).where(DriftAlarmRow.id == bindparam("number")).values(ended_at=bindparam("now"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannerDrift:
    """A scanner, its baseline, and what came lately."""

    scanner: Scanner
    number: int | None  # of its baseline; None: the watch has not come to it yet
    before: Sample | None  # the baseline; None: it is being learnt
    learning: Sample  # films towards it
    now: Sample
    shifts: tuple[Shift, ...]
    is_new: bool  # it came long after the others


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Every scanner of the time that is looked at, those with the most films first."""

    model_id: str  # that reads now; empty: none has read yet
    scanners: tuple[ScannerDrift, ...] = ()


class Drift:
    """Scanners, and alarms on them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, rules: DriftRules, now: datetime) -> Look:
        """How each scanner does. Changes nothing."""
        return self._database.read(lambda connection: _look(connection, rules, now))

    def watch(self, rules: DriftRules, now: datetime) -> list[DriftAlarm]:
        """Look, learn, begin and end alarms; returns those that began.

        An alarm ends well below its limit, or when its baseline was set aside, its scanner sends nothing any more or
        the model does not read any more. Too few films to say end nothing.
        """
        look = self.look(rules, now)  # not with the lock of a writer: it may go through many films

        def work(connection: Connection) -> list[DriftAlarm]:
            _learn(connection, look, rules, now)
            return _note(connection, look, now)

        return self._database.write(work)

    def set_aside(self, number: int, who: str, now: datetime) -> bool:
        """Films from now on make another baseline; False where there is none of this number, or it is set aside."""

        def work(connection: Connection) -> bool:
            row = connection.execute(_ONE, {"number": number}).one_or_none()
            if row is None:
                return False
            connection.execute(_SET_ASIDE, {"number": number, "who": clean(who), "now": now})
            connection.execute(_baseline(row.model_id, row.scanner, seen_at=now, since=now))
            return True

        return self._database.write(work)

    def alarms(self, limit: int, *, only_open: bool = False) -> list[DriftAlarm]:
        """The latest first."""
        asked = (_OPEN if only_open else _ALARMS).limit(limit)
        return self._database.read(lambda connection: [_alarm(row) for row in connection.execute(asked)])

    def untold(self) -> list[DriftAlarm]:
        """Alarms of whose beginning nobody was told by mail, and those of whose end nobody was."""
        return self._database.read(
            lambda c: [_alarm(row) for asked in (_BEGINS_UNTOLD, _OVER_UNTOLD) for row in c.execute(asked)]
        )

    def told(self, alarm: DriftAlarm, now: datetime) -> None:
        """Somebody was: of its end if it is over, else of its beginning."""
        column = "told_at" if alarm.ended_at is None else "over_told_at"
        told = update(DriftAlarmRow).where(DriftAlarmRow.id == alarm.id).values({column: now})
        self._database.write(lambda connection: connection.execute(told))


def _look(connection: Connection, rules: DriftRules, now: datetime) -> Look:
    model = connection.scalar(_LATEST_MODEL, {"now": now})
    if model is None:
        return Look(model_id="")
    rows = connection.execute(_KNOWN).all()
    known = {Scanner(**row.scanner): row for row in rows if row.model_id == model}  # the latest of each
    first = {Scanner(**row.scanner): row for row in reversed(rows)}  # by whichever model
    began = rows[0].seen_at if rows else now
    lately = _samples(connection, model, now - rules.recent, now)
    learning = _learning(connection, model, [row for row in known.values() if row.sample is None], rules, now)
    found = []
    for scanner in sorted(lately, key=lambda scanner: (-lately[scanner].films, scanner.words))[:MOST]:
        row = known.get(scanner)
        before = None if row is None or row.sample is None else sample_from_json(row.sample)
        seen_at = first[scanner].seen_at if scanner in first else now
        found.append(
            ScannerDrift(
                scanner=scanner,
                number=None if row is None else row.id,
                before=before,
                learning=learning.get(scanner, Sample()),
                now=lately[scanner],
                shifts=() if before is None else tuple(shifts(before, lately[scanner], rules)),
                is_new=before is None and began + rules.learning < seen_at and now < seen_at + rules.learning,
            )
        )
    return Look(model_id=model, scanners=tuple(found))


def _learn(connection: Connection, look: Look, rules: DriftRules, now: datetime) -> None:
    """Begin with each scanner that is new to the model; a baseline for each of which enough films are known."""
    known = {Scanner(**row.scanner) for row in connection.execute(_KNOWN) if row.model_id == look.model_id}
    for found in look.scanners:
        if found.number is None and found.scanner not in known:  # another process may have been here since
            raw = scanner_to_json(found.scanner)
            connection.execute(_baseline(look.model_id, raw, seen_at=now, since=now - rules.learning))
        elif found.before is None and found.learning.films >= rules.films:
            connection.execute(_LEARNT, {"number": found.number, "films": found.learning.to_json(), "now": now})


def _note(connection: Connection, look: Look, now: datetime) -> list[DriftAlarm]:
    over = {(s.scanner, shift.measure): shift for s in look.scanners for shift in s.shifts}
    over |= {(s.scanner, Measure.NEW): _NEVER_BEFORE for s in look.scanners if s.is_new}
    known = {s.scanner for s in look.scanners if s.before is not None}
    alarmed = set()
    for alarm in [_alarm(row) for row in connection.execute(_OPEN)]:
        kind = (alarm.scanner, alarm.measure)
        shift = over.get(kind)
        stays = (
            shift.value > _END * shift.limit
            if shift is not None
            else alarm.scanner in known and alarm.measure is not Measure.NEW  # too few films to say
        )
        if stays and alarm.model_id == look.model_id:
            alarmed.add(kind)
        else:
            connection.execute(_ENDS, {"number": alarm.id, "now": now})
    made = insert(DriftAlarmRow).returning(DriftAlarmRow)
    return [
        _alarm(
            connection.execute(
                made.values(
                    model_id=look.model_id,
                    scanner=scanner_to_json(scanner),
                    measure=measure.value,
                    value=shift.value,
                    limit=shift.limit,
                    began_at=now,
                )
            ).one()
        )
        for (scanner, measure), shift in over.items()
        if shift.is_over and (scanner, measure) not in alarmed
    ]


def _baseline(model: str, scanner: dict[str, Any], *, seen_at: datetime, since: datetime) -> Any:
    return insert(BaselineRow).values(model_id=model, scanner=scanner, seen_at=seen_at, since=since)


def _learning(
    connection: Connection, model: str, rows: Iterable[Any], rules: DriftRules, now: datetime
) -> dict[Scanner, Sample]:
    """The films that count for each of these baselines."""
    found: dict[Scanner, Sample] = {}
    samples: dict[datetime, dict[Scanner, Sample]] = {}
    for row in rows:
        since = max(row.since, now - rules.learning)
        if since not in samples:
            samples[since] = _samples(connection, model, since, now)
        scanner = Scanner(**row.scanner)
        found[scanner] = samples[since].get(scanner, Sample())
    return found


def _samples(connection: Connection, model: str, since: datetime, until: datetime) -> dict[Scanner, Sample]:
    scores: dict[Scanner, list[int]] = {}
    not_analysed: dict[Scanner, int] = {}
    turned: dict[Scanner, int] = {}
    for row in connection.execute(_SAMPLES, {"model": model, "since": since, "until": until}):
        scanner = Scanner(**row.scanner)
        bins = scores.setdefault(scanner, [0] * BINS)
        if row.state == JobState.READ:
            bins[min(BINS - 1, max(0, int(row.bin)))] += row.films
            turned[scanner] = turned.get(scanner, 0) + row.films * row.turned
        else:
            not_analysed[scanner] = not_analysed.get(scanner, 0) + row.films
    return {
        scanner: Sample(scores=tuple(bins), not_analysed=not_analysed.get(scanner, 0), polarity=turned.get(scanner, 0))
        for scanner, bins in scores.items()
    }


def _alarm(row: Any) -> DriftAlarm:
    return DriftAlarm(
        id=row.id,
        scanner=Scanner(**row.scanner),
        model_id=row.model_id,
        measure=Measure(row.measure),
        value=row.value,
        limit=row.limit,
        began_at=row.began_at,
        ended_at=row.ended_at,
    )
