"""When each duty runs. The only module that knows APScheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger("hilum.upkeep")


@dataclass(frozen=True, slots=True)
class Duty:
    """A duty's name, its rhythm, and what it does; returns how many things it touched."""

    name: str
    every: timedelta
    run_once: Callable[[], int]
    at_start: bool = True


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
