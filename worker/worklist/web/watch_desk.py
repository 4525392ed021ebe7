"""What the watching page is made of, and what it shows: one look at everything that says how hilum does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from schemas.lifecycle import OutboxState
from schemas.standing import Line, Standing
from schemas.watching import DriftAlarm, DriftRules, Pause, Spell
from worker.record.times import Spread, Stage
from worker.record.traffic import Hour, Queue

if TYPE_CHECKING:
    from worker.record.agreement import Judged, ReaderAgreement
    from worker.record.destinations import Destinations
    from worker.record.drift import Drift, Look
    from worker.record.outbox import Outbox, Refusals
    from worker.record.pauses import Pauses
    from worker.record.times import Times
    from worker.record.traffic import Kept, Traffic

WINDOWS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
PERCENTILES: Final = (50, 95, 99)
HOURS: Final = 24
MONTHS: Final = timedelta(days=183)  # of readers' words
_LATE: Final = timedelta(minutes=5)  # a trial that is so long overdue is nobody's: no worker delivers
_MOST: Final = 50  # refusals, alarms


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of asking a destination whether it is there."""

    at: datetime
    is_there: bool
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FlagTime:
    """How long the flags of one destination took until it had them, by window; and each stage of the last day."""

    destination: str
    windows: Mapping[str, Spread]
    stages: Mapping[Stage, Spread]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A destination, as it is now."""

    name: str
    configured: bool
    mark: str  # "up", "resting", "down", "unknown"
    words: str
    failures: int
    last_error: str
    waiting: int
    waiting_since: datetime | None
    refused: int
    test: Answer | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What takes some time to count; as of `at`."""

    at: datetime
    times: tuple[FlagTime, ...]
    by_hour: tuple[tuple[datetime, Spread], ...]  # of all destinations, the last day
    hours: tuple[Hour, ...]
    windows: Mapping[str, Hour]
    judged: tuple[Judged, ...]
    drift: Look
    kept: Kept


@dataclass(frozen=True, kw_only=True)
class Long:
    """Those of them that take longest; as of `at`."""

    at: datetime
    times: Mapping[str, Spread]  # of the week, by destination
    week: Hour
    judged: tuple[Judged, ...]
    drift: Look
    kept: Kept


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything on the page."""

    figures: Figures
    queue: Queue
    pause: Pause | None
    spells: tuple[Spell, ...]
    places: tuple[Place, ...]
    refusals: tuple[Refusals, ...]
    alarms: tuple[DriftAlarm, ...]


@dataclass(frozen=True, kw_only=True)
class WatchDesk:
    """Doors to the record, and what only the assembled worker can do."""

    times: Times
    traffic: Traffic
    agreement: ReaderAgreement
    drift: Drift
    pauses: Pauses
    destinations: Destinations
    outbox: Outbox
    configured: Sequence[str] = ()  # destinations
    test: Callable[[str], str] | None = None  # ask one whether it is there; `HilumError` where it is not
    rules: DriftRules = field(default_factory=DriftRules)
    keep: timedelta = timedelta(days=7)  # films, after their study is final; zero: for ever
    watermark: int = 0  # bytes of free disk below which films are refused
    every: timedelta = timedelta(seconds=15)  # so long figures are good for every page that is open
    slowly: timedelta = timedelta(minutes=5)  # those of the week, of scanners and of what is kept
    tests: dict[str, Answer] = field(default_factory=dict)  # the last of each
    _figures: list[Figures] = field(default_factory=list)
    _long: list[Long] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def view(self, now: datetime) -> View:
        """How everything is."""
        return View(
            figures=self.figures(now),
            queue=self.traffic.queue(),
            pause=self.pauses.current(),
            spells=tuple(self.pauses.spells(10)),
            places=tuple(self.places(now)),
            refusals=tuple(self.outbox.refusals(_MOST)),
            alarms=tuple(self.drift.alarms(_MOST)),
        )

    def figures(self, now: datetime) -> Figures:
        """Counted anew when they are older than `every`, what takes longest when it is older than `slowly`, by whoever
        asks first."""
        with self._counting:
            if not self._long or not timedelta(0) <= now - self._long[0].at < self.slowly:
                self._long[:] = [self._count_long(now)]
            if not self._figures or not timedelta(0) <= now - self._figures[0].at < self.every:
                self._figures[:] = [self._count(now, self._long[0])]
            return self._figures[0]

    def forget(self) -> None:
        """What was counted does not hold any more: count anew."""
        with self._counting:
            self._long.clear()
            self._figures.clear()

    def _count_long(self, now: datetime) -> Long:
        spreads: dict[str, Spread] = {}
        for flag in self.times.flags(now - WINDOWS["week"], now):
            spread = spreads.setdefault(flag.destination, Spread())
            if flag.sent_at is not None:
                spread.add((flag.sent_at - flag.received_at).total_seconds())
        return Long(
            at=now,
            times=spreads,
            week=self.traffic.hours(now - WINDOWS["week"], 1, WINDOWS["week"])[0],
            judged=tuple(self.agreement.by_month(now - MONTHS, now + timedelta(microseconds=1))),
            drift=self.drift.look(self.rules, now),
            kept=self.traffic.kept(),
        )

    def _count(self, now: datetime, long: Long) -> Figures:
        first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
        by_hour = [(first + timedelta(hours=n), Spread()) for n in range(HOURS)]
        windows: dict[str, dict[str, Spread]] = {name: _windows(spread) for name, spread in long.times.items()}
        stages: dict[str, dict[Stage, Spread]] = {name: _stages() for name in long.times}
        for flag in self.times.flags(now - WINDOWS["day"], now):
            waited = flag.waited()
            own = windows.setdefault(flag.destination, _windows(Spread()))
            parts = stages.setdefault(flag.destination, _stages())
            for stage, seconds in waited.items():
                parts[stage].add(seconds)
            if Stage.SENT in waited:
                own["day"].add(waited[Stage.SENT])
                if flag.decided_at >= now - WINDOWS["hour"]:
                    own["hour"].add(waited[Stage.SENT])
                if flag.decided_at >= first:
                    by_hour[int((flag.decided_at - first).total_seconds() // 3600)][1].add(waited[Stage.SENT])
        shorter = {name: self.traffic.hours(now - WINDOWS[name], 1, WINDOWS[name])[0] for name in ("hour", "day")}
        return Figures(
            at=now,
            times=tuple(
                FlagTime(destination=name, windows=windows[name], stages=stages[name]) for name in sorted(windows)
            ),
            by_hour=tuple(by_hour),
            hours=tuple(self.traffic.hours(first, HOURS)),
            windows={**shorter, "week": long.week},
            judged=long.judged,
            drift=long.drift,
            kept=long.kept,
        )

    def places(self, now: datetime) -> list[Place]:
        """Every destination that is configured, or that something waits for."""
        counts, waiting = self.outbox.counts(), self.outbox.waiting_since()
        standings = self.destinations.standings()
        found = []
        for name in dict.fromkeys((*self.configured, *sorted(counts))):
            standing, count = standings.get(name), counts.get(name, {})
            mark, words = standing_words(standing, now)
            found.append(
                Place(
                    name=name,
                    configured=name in self.configured,
                    mark=mark,
                    words=words,
                    failures=0 if standing is None else standing.failures,
                    last_error="" if standing is None else standing.last_error,
                    waiting=count.get(OutboxState.PENDING, 0) + count.get(OutboxState.SENDING, 0),
                    waiting_since=waiting.get(name),
                    refused=count.get(OutboxState.REFUSED, 0),
                    test=self.tests.get(name),
                )
            )
        return found


def _windows(week: Spread) -> dict[str, Spread]:
    return {"hour": Spread(), "day": Spread(), "week": week}


def _stages() -> dict[Stage, Spread]:
    return {stage: Spread() for stage in Stage}


def standing_words(standing: Standing | None, now: datetime) -> tuple[str, str]:
    """A mark and words for a person."""
    if standing is None:
        return "unknown", "not yet served"
    if standing.line is Line.CLOSED and not standing.failures:
        return "up", "up"
    mark = "resting" if standing.line is Line.CLOSED else "down"
    if standing.next_trial_at is None:
        return mark, f"{mark}, being tried"
    words = f"{mark}, tried again at {standing.next_trial_at:%H:%M:%S} UTC"
    if now - standing.next_trial_at > _LATE:
        return mark, f"{words}, which is overdue: does a worker deliver?"
    return mark, words
