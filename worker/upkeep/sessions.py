"""Let go of sessions that are over and of links that are no good any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.record.people import People

EVERY = timedelta(hours=1)


def run_once(people: People, now: datetime, *, longest: timedelta) -> int:
    """Returns how many went; `longest` is how long a session lasts at most."""
    return people.sweep(now, longest)
