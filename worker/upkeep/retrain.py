"""Ask for the training runs that the calendar says are due. A trainer carries them out, wherever it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from worker.record.retrainings import Retrainings

EVERY = timedelta(seconds=30)

log = logging.getLogger("hilum.upkeep")


def run_once(retrainings: Retrainings, now: datetime, next_time: Callable[[str, datetime], datetime]) -> int:
    """Ask for what is due, once, however many processes look; returns how many runs.

    `next_time`: cron expression and a moment → when it comes next after that.
    """
    asked = retrainings.ask(now, next_time)
    for run in asked:
        log.info("retraining-asked run=%d", run)
    return len(asked)
