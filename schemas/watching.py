"""What is watched: whether flags are paused, and whether a scanner's films are as they were."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.scanner import Scanner


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Flags are held back since `at`; films are received and read, and stand on the list, as ever."""

    at: datetime
    who: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Spell:
    """A pause that was, or still is."""

    pause: Pause
    resumed_at: datetime | None = None
    resumed_by: str = ""
    because: str = ""


class Measure(StrEnum):
    """In what a scanner's films may differ from those that its baseline was made of."""

    SCORES = "scores"  # of the binary model: population stability index
    NOT_ANALYSED = "not-analysed"  # share of films
    POLARITY = "polarity"  # share of films that had to be turned from black on white
    NEW = "new"  # nothing is known of this scanner yet


MEASURE_WORDS: dict[Measure, str] = {
    Measure.SCORES: "scores",
    Measure.NOT_ANALYSED: "not analysed",
    Measure.POLARITY: "polarity corrected",
    Measure.NEW: "new scanner",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftRules:
    """When a scanner's films count as others than they were. By `[watch]`."""

    films: int = 200  # of which a baseline is made; and half as many are compared, at the least
    recent: timedelta = timedelta(days=7)  # what is compared with it
    learning: timedelta = timedelta(days=28)  # in which they come; before that no scanner counts as new
    scores: float = 0.25  # population stability index
    share: float = 0.05  # of films, above the baseline's


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """How far one measure is from its baseline. Over `limit`: an alarm."""

    measure: Measure
    value: float
    limit: float
    before: float | None = None  # the baseline's own, where the measure is a share

    @property
    def is_over(self) -> bool:
        """Whether it is too far."""
        return self.value > self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftAlarm:
    """A measure of a scanner is over its limit, or was."""

    id: int
    scanner: Scanner
    model_id: str
    measure: Measure
    value: float
    limit: float
    began_at: datetime
    ended_at: datetime | None

    @property
    def words(self) -> str:
        """For a person: what is over, by how much."""
        match self.measure:
            case Measure.NEW:
                return f"{self.scanner.words}: a scanner, or a setting of one, that was not here before"
            case Measure.SCORES:
                figures = f"stability index {self.value:.2f}, limit {self.limit:.2f}"
                return f"{self.scanner.words}: the scores are not spread as they were ({figures})"
            case Measure.NOT_ANALYSED:
                what = "films that are not analysed"
            case Measure.POLARITY:
                what = "films that came inverted"
        return f"{self.scanner.words}: {self.value:.0%} {what}, limit {self.limit:.0%}"
