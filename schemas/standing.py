"""How a destination does, as its courier sees it: the circuit breaker, told to whoever looks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Line(StrEnum):
    """The circuit breaker between a courier and its destination."""

    CLOSED = "closed"  # flags go through
    OPEN = "open"  # it failed again and again: nothing is sent before the next trial
    HALF_OPEN = "half-open"  # the trial is under way: one flag


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What the courier that spoke last knows of a destination."""

    destination: str
    line: Line = Line.CLOSED
    failures: int = 0  # passing ones, in a row
    since: datetime  # of the line
    next_trial_at: datetime | None = None  # None: whenever there is something to send
    last_error: str = ""  # of the failures in a row: the fault and the mend
