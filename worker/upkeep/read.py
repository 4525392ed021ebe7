"""What was read on the page is over for everybody, once it cannot be undone any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from schemas.outcome import Route
from worker.record.readings import Readings

EVERY = timedelta(seconds=5)


def run_once(readings: Readings, route: Route, now: datetime, *, undo: timedelta) -> int:
    """Take the flags of studies back that were read `undo` ago; returns how many studies."""
    return readings.settle(route, now, undo)
