"""Give back the films and flags whose holder died."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from worker.record.jobs import Jobs
from worker.record.outbox import Outbox

EVERY = timedelta(seconds=5)


def run_once(
    jobs: Jobs, outbox: Outbox, now: datetime, *, max_attempts: int, is_dead: Callable[[str], bool] = lambda _: False
) -> int:
    """Free lapsed leases, and at once those of owners that are known to be dead; returns how many."""
    dead = [owner for owner in jobs.owners() | outbox.owners() if is_dead(owner)]
    return jobs.rescue(now, max_attempts, dead) + outbox.rescue(now, dead)
