"""A circuit breaker: a destination that fails again and again is left alone, longer each time, and tried with one flag.

closed ── failures in a row ─► open ── its rest is over ─► half-open ── it takes the flag ─► closed
                                ▲                             │
                                └─────────── it fails ────────┘
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from schemas.standing import Line, Standing


@dataclass(frozen=True, kw_only=True)
class BreakerRules:
    """After the n-th failure in a row a rest of `pause` x 2^n, at most `longest`; from `trips` on the line is open."""

    pause: float = 0.5  # seconds
    longest: float = 60.0  # seconds
    trips: int = 3

    def rest(self, failures: int) -> float:
        """Seconds, with jitter: many couriers must not come back to one destination at the same moment."""
        wait = min(self.longest, self.pause * 2.0 ** min(failures, 20))
        return wait * random.uniform(0.75, 1.25)  # noqa: S311  jitter, not a secret


class Breaker:
    """Belongs to one courier. `standing` is what it knows."""

    def __init__(self, destination: str, rules: BreakerRules, now: datetime) -> None:
        self._rules = rules
        self.standing = Standing(destination=destination, since=now)

    @property
    def is_sound(self) -> bool:
        """Nothing has failed since something last went through."""
        return self.standing.failures == 0

    def failed(self, error: str, now: datetime) -> float:
        """A passing failure; seconds to rest."""
        failures = self.standing.failures + 1
        wait = self._rules.rest(failures)
        self._turn(Line.OPEN if failures >= self._rules.trips else Line.CLOSED, now)
        self.standing = replace(
            self.standing, failures=failures, next_trial_at=now + timedelta(seconds=wait), last_error=error
        )
        return wait

    def tries(self, now: datetime) -> None:
        """The rest is over: what is sent now is the trial."""
        if self.standing.line is Line.OPEN:
            self._turn(Line.HALF_OPEN, now)
        self.standing = replace(self.standing, next_trial_at=None)

    def answered(self, now: datetime) -> None:
        """It is there: it took a flag, or refused one for good."""
        if not self.is_sound:
            self._turn(Line.CLOSED, now)
            self.standing = replace(self.standing, failures=0, next_trial_at=None, last_error="")

    def _turn(self, line: Line, now: datetime) -> None:
        if line is not self.standing.line:
            self.standing = replace(self.standing, line=line, since=now)
