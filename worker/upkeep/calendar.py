"""When each duty runs. The only module that knows APScheduler."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from schemas.errors import ConfigurationError

log = logging.getLogger("hilum.upkeep")

_CRON: Final = re.compile(r"[0-9A-Za-z*/, -]{1,100}")


@dataclass(frozen=True, slots=True)
class Duty:
    """A duty's name, its rhythm, and what it does; returns how many things it touched."""

    name: str
    every: timedelta
    run_once: Callable[[], int]
    at_start: bool = True


def next_time(cron: str, after: datetime) -> datetime:
    """When a cron expression comes next after a moment, by UTC.

    Parameters
    ----------
    cron:
        Minute, hour, day of the month, month, weekday: "0 2 1 * *" is the first of each month at 02:00, "0 2 1-7 * sun"
        its first Sunday (all that is said must hold). Weekdays are named: programs differ in which day is 0.

    Raises
    ------
    ConfigurationError
        It is no such expression, or never comes.
    """
    if not _CRON.fullmatch(cron):
        raise ConfigurationError(f"{cron[:80]!r}: not minute, hour, day, month, weekday as cron has them")
    fields = cron.split()
    if len(fields) == 5 and any(c.isdigit() for c in fields[4].partition("/")[0]):
        raise ConfigurationError(f"{cron!r}: name the weekdays (mon, tue, wed, thu, fri, sat, sun)")
    try:
        trigger = CronTrigger.from_crontab(cron, timezone=UTC)
    except ValueError as error:
        raise ConfigurationError(f"{cron!r}: not minute, hour, day, month, weekday: {error}") from error
    found = trigger.get_next_fire_time(None, after.astimezone(UTC) + timedelta(microseconds=1))
    if found is None:
        raise ConfigurationError(f"{cron!r}: there is no such day")
    moment: datetime = found
    return moment.astimezone(UTC)


def _guarded(duty: Duty) -> None:
    try:
        count = duty.run_once()
    except Exception:
        log.error("duty-failed duty=%s", duty.name, exc_info=True)
        return
    if count:
        log.info("duty duty=%s count=%d", duty.name, count)


class Calendar:
    """Runs each duty in its rhythm, and at start unless it says otherwise; never twice at once."""

    def __init__(self, duties: Sequence[Duty]) -> None:
        self._scheduler = BackgroundScheduler(timezone=UTC)
        for duty in duties:
            self._scheduler.add_job(
                _guarded,
                "interval",
                args=[duty],
                seconds=duty.every.total_seconds(),
                id=duty.name,
                name=duty.name,  # in APScheduler's own warnings
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
                next_run_time=datetime.now(UTC) + (timedelta(0) if duty.at_start else duty.every),
            )

    def start(self) -> None:
        """Start the clock."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop; a duty in hand is finished first."""
        self._scheduler.shutdown(wait=True)
