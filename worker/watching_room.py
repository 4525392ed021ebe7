"""What is watched, and what whoever reads the list must know now, with the mend. Part of the roof."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from schemas.standing import Line
from schemas.watching import DriftRules
from worker.record.agreement import ReaderAgreement
from worker.record.destinations import Destinations
from worker.record.drift import Drift
from worker.record.outbox import Outbox
from worker.record.pauses import Pauses
from worker.record.times import Times
from worker.record.traffic import Traffic
from worker.worklist.web.watch_desk import WatchDesk

if TYPE_CHECKING:
    from worker.record.database import Database
    from worker.settings import Settings

_MOST_ALARMS: Final = 3  # of drift, that the list tells of; the watching page has all


def drift_rules(settings: Settings) -> DriftRules:
    """When a scanner's films count as others than they were."""
    watch = settings.watch
    return DriftRules(
        films=watch.drift_films,
        recent=timedelta(days=watch.drift_days),
        scores=watch.drift_scores,
        share=watch.drift_share,
    )


def watch_desk(settings: Settings, database: Database, test: Callable[[str], str] | None = None) -> WatchDesk:
    """What the watching page is made of; `test` asks a destination whether it is there."""
    return WatchDesk(
        times=Times(database),
        traffic=Traffic(database),
        agreement=ReaderAgreement(database),
        drift=Drift(database),
        pauses=Pauses(database),
        destinations=Destinations(database),
        outbox=Outbox(database),
        configured=[destination.name for destination in settings.destinations],
        test=test,
        rules=drift_rules(settings),
        keep=timedelta(days=settings.spool.keep_days),
        watermark=settings.spool.watermark_mib << 20,
    )


def notices(settings: Settings, database: Database, free_bytes: int, now: datetime) -> list[str]:
    """For whoever reads the list: each says what is so, since when, and the mend."""
    return [
        *_paused(database),
        *_behind(database, now, timedelta(seconds=settings.watch.behind_seconds)),
        *_away(settings, database, now),
        *_full(free_bytes, settings.spool.watermark_mib << 20),
        *_drifting(database),
    ]


def _paused(database: Database) -> list[str]:
    pause = Pauses(database).current()
    if pause is None:
        return []
    return [
        f"Flags are paused since {_moment(pause.at)} by {pause.who}: {pause.why}. No destination is told of new ones; "
        "films are received and read, and this list goes on by what was read. "
        "An administrator resumes them under Watching."
    ]


def _behind(database: Database, now: datetime, after: timedelta) -> list[str]:
    queue = Traffic(database).queue()
    if queue.since is None or now - queue.since <= after:
        return []
    films = queue.waiting + queue.in_hand
    what = "1 film waits" if films == 1 else f"{films} films wait"
    return [
        f"hilum is behind: {what} to be read, the first since {_moment(queue.since)}. What is not flagged may not have "
        "been read yet. See whether a process with the role read runs, and its log."
    ]


def _away(settings: Settings, database: Database, now: datetime) -> list[str]:
    configured = {destination.name for destination in settings.destinations}
    return [
        f"Destination {name} is down since {_moment(standing.since)}, and does not hear of flags: "
        f"{standing.last_error or 'no error was reported'}. hilum goes on trying; test it under Watching."
        for name, standing in Destinations(database).standings().items()
        if name in configured and standing.line is not Line.CLOSED
    ]


def _full(free_bytes: int, watermark: int) -> list[str]:
    if free_bytes >= 2 * watermark:
        return []
    free = f"{free_bytes / 2**30:.1f} GiB of disk free"
    mend = "Free some, or let [spool] keep_days be shorter."
    if free_bytes < watermark:
        return [f"Films are refused: {free}, less than [spool] watermark_mib. Their senders keep them. {mend}"]
    return [f"The disk is nearly full: {free}; below {watermark / 2**30:.1f} GiB films are refused. {mend}"]


def _drifting(database: Database) -> list[str]:
    alarms = Drift(database).alarms(_MOST_ALARMS + 1, only_open=True)
    said = [f"Films have changed: {alarm.words}. See Watching." for alarm in alarms[:_MOST_ALARMS]]
    return said + ["Films of further scanners have changed: see Watching."] * (len(alarms) > _MOST_ALARMS)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
