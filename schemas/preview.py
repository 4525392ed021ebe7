"""What past studies would have been under an edited policy, and how good each threshold is. Numbers are of studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas.decision import Reason, Urgency


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How many studies a policy raises, and how fast they come."""

    urgencies: Mapping[Urgency, int]  # STAT and URGENT
    per_hour: float  # on average
    busiest: int  # in one hour of the clock

    @property
    def raised(self) -> int:
        """All of them."""
        return sum(self.urgencies.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """The flag that a study has in the end."""

    at: datetime  # when it was first raised
    urgency: Urgency
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """A study that the edited policy raises otherwise than the one in force; None: not at all."""

    study_uid: str
    before: Raised | None
    after: Raised | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Flags of a day, or of an hour of the day on average."""

    name: str  # "Mon 3 Mar", "07"
    before: float
    after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A share that was counted, or read off a curve; the 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodness:
    """How good a finding's flag is at a threshold."""

    sensitivity: Rate
    specificity: Rate
    ppv: float | None  # where the finding is as frequent as here


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one finding, or "binary", has in it."""

    threshold: float  # in force under the edited policy
    reached: int  # studies with a film at the threshold, whatever the policy makes of them
    before: int  # studies for which it is among the reasons
    after: int
    goodness: Goodness | None  # None: not known there


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """The edited policy beside the one in force, on the studies that came in [since, until)."""

    since: datetime
    until: datetime
    studies: int
    films: int  # that were read
    before: Load
    after: Load
    gained: int
    lost: int
    other_urgency: int
    changed: tuple[Changed, ...]  # the latest first, not all of them
    days: tuple[Span, ...]
    hours: tuple[Span, ...]  # 24
    shares: Mapping[str, Share]  # by output
    flags: Mapping[str, Raised]  # by Study Instance UID, every study that the edited policy raises


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One finding, or "binary", at every threshold of a grid; lists are as long as `thresholds`."""

    thresholds: tuple[float, ...]  # rising
    flags_per_hour: tuple[float, ...]  # if it alone raised studies
    goodness: tuple[Goodness | None, ...]
    card_threshold: float | None
    measured_at: tuple[float, ...]  # thresholds at which it was measured, the rest is drawn; empty: measured everywhere
    words: str  # where the goodness is from, and what speaks against it
    prevalence: float | None
    prevalence_words: str
