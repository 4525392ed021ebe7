"""How good a finding's flag is at a threshold: counted at this site where people judged enough, else by the card.

A card tells sensitivity and specificity of its test films at two thresholds. What lies between and a little beyond is
drawn through both, with scores taken as normally distributed on the logit scale (binormal: Dorfman and Alf 1969). It is
exact at these two and an opinion beside them, which the words say; farther away nothing is told.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Protocol

from schemas.card import ModelCard
from schemas.figures import Figure, figure_in
from schemas.policy import BINARY
from schemas.preview import Goodness, Rate
from worker.record.judged import JudgedStudy

ENOUGH: Final = 10  # studies with the finding, and as many without, from which on this site's own figures are told
ENOUGH_REPORTS: Final = 50  # from which on the prevalence is this site's
_NORMAL: Final = NormalDist()
_SURE: Final = 1.959964  # standard deviations of a 95 % interval
_BEYOND: Final = math.log(3)  # of odds, on either side of what was measured


class Source(Protocol):
    """Sensitivity and specificity at a threshold; None where they are not known."""

    @property
    def words(self) -> str: ...

    @property
    def measured_at(self) -> tuple[float, ...]: ...

    def at(self, threshold: float) -> tuple[Rate, Rate] | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Prevalence:
    """How often the finding is there, and who says so."""

    value: float | None
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ByPeople:
    """Counted on studies that people judged; probabilities sorted, of those with and those without the finding."""

    present: Sequence[float]
    absent: Sequence[float]
    words: str
    measured_at: tuple[float, ...] = ()

    def at(self, threshold: float) -> tuple[Rate, Rate]:
        """Shares with their Wilson intervals."""
        found = len(self.present) - bisect_left(self.present, threshold)
        passed = bisect_left(self.absent, threshold)
        return wilson(found, len(self.present)), wilson(passed, len(self.absent))


@dataclass(frozen=True, kw_only=True, slots=True)
class ByCard:
    """Measured at one or two thresholds of the card; the line through two on the normal scale is told near them."""

    points: tuple[tuple[float, Figure, Figure], ...]  # threshold, sensitivity, specificity; rising
    floor: float  # half a film: what a share of none is taken as
    words: str

    @property
    def measured_at(self) -> tuple[float, ...]:
        """Where the card was measured."""
        return tuple(threshold for threshold, _, _ in self.points)

    def at(self, threshold: float) -> tuple[Rate, Rate] | None:
        """As measured, else on the line; None where nothing was measured near it."""
        for measured, sensitivity, specificity in self.points:
            if math.isclose(threshold, measured, abs_tol=1e-6):
                return _rate(sensitivity), _rate(specificity)
        if len(self.points) == 1:
            return None
        (t1, hit1, pass1), (t2, hit2, pass2) = self.points
        here, low, high = logit(threshold), logit(t1), logit(t2)
        if not low - _BEYOND <= here <= high + _BEYOND:
            return None
        share = (here - low) / (high - low)
        return self._on_line(hit1, hit2, share), self._on_line(pass1, pass2, share)

    def _on_line(self, one: Figure, other: Figure, share: float) -> Rate:
        a, b = (_NORMAL.inv_cdf(min(1 - self.floor, max(self.floor, f.value))) for f in (one, other))
        return Rate(value=_NORMAL.cdf(a + share * (b - a)))


def logit(p: float) -> float:
    """ln(p / (1 - p))."""
    return math.log(p / (1 - p))


def wilson(count: int, of: int) -> Rate:
    """A share and its 95 % score interval (Wilson 1927)."""
    if not of:
        return Rate(value=math.nan)
    p, z2 = count / of, _SURE**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    width = _SURE * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return Rate(value=p, low=max(0.0, middle - width), high=min(1.0, middle + width))


def goodness(source: Source | None, prevalence: Prevalence, threshold: float) -> Goodness | None:
    """Sensitivity, specificity, and what they make of a flag here; None where they are not known."""
    known = None if source is None else source.at(threshold)
    if known is None:
        return None
    sensitivity, specificity = known
    return Goodness(sensitivity=sensitivity, specificity=specificity, ppv=ppv(sensitivity, specificity, prevalence))


def ppv(sensitivity: Rate, specificity: Rate, prevalence: Prevalence) -> float | None:
    """Of those flagged, the share that has it (Bayes); None where nothing would be flagged, or the share is unknown."""
    if prevalence.value is None:
        return None
    true = sensitivity.value * prevalence.value
    flagged = true + (1 - specificity.value) * (1 - prevalence.value)
    return true / flagged if flagged > 0 else None


def source_of(card: ModelCard, judged: Iterable[JudgedStudy], output: str) -> Source | None:
    """This site's own figures where there are enough; else the card's; None where that has none either."""
    present: list[float] = []
    absent: list[float] = []
    readers = 0
    for study in judged:
        said = study.reported.get(output, study.judged.get(output))
        if said is None or output not in study.scores:
            continue
        readers += output not in study.reported
        (present if said else absent).append(study.scores[output])
    if min(len(present), len(absent)) < ENOUGH:
        return _by_card(card, output, len(present), len(absent))
    count = len(present) + len(absent)
    words = f"counted on {count} studies of this site that people judged, {len(present)} of them with it"
    if 2 * readers > count:
        words += f"; {readers} by readers, who mostly judge what was flagged: sensitivity looks better than it is"
    return ByPeople(present=sorted(present), absent=sorted(absent), words=words)


def prevalence_of(card: ModelCard, judged: Iterable[JudgedStudy], output: str) -> Prevalence:
    """By the signed reports of this site, else as the card has it."""
    reported = [study.reported[output] for study in judged if output in study.reported]
    if len(reported) >= ENOUGH_REPORTS:
        return Prevalence(value=sum(reported) / len(reported), words=f"by {len(reported)} signed reports of this site")
    where = _where(output)
    for path, words in (
        (("at_site", "prevalence"), "as the card expects it at a site; fewer than 50 reports are in"),
        (("prevalence",), "as among the card's test films; fewer than 50 reports are in"),
    ):
        figure = figure_in(card.metrics, *where, *path)
        if figure is not None:
            return Prevalence(value=figure.value, words=words)
    return Prevalence(value=None, words="not known")


def _by_card(card: ModelCard, output: str, present: int, absent: int) -> ByCard | None:
    where = _where(output)
    points = {}
    for path in ((), ("at_balanced_point",)):
        at, sensitivity, specificity = (
            figure_in(card.metrics, *where, *path, key) for key in ("threshold", "sensitivity", "specificity")
        )
        if at is not None and 0 < at.value < 1 and sensitivity is not None and specificity is not None:
            points[at.value] = (at.value, sensitivity, specificity)
    drawn = tuple(points[threshold] for threshold in sorted(points))
    if not drawn:
        return None
    if len(drawn) == 2 and (drawn[0][1].value < drawn[1][1].value or drawn[0][2].value > drawn[1][2].value):
        drawn = drawn[:1]  # no curve rises and falls so
    films, positives = (figure_in(card.metrics, *where, key) for key in ("films", "positives"))
    fewest = min(positives.value, films.value - positives.value) if films and positives else 0.0
    measured = f"measured on {films.value:.0f} test films of the model's card" if films else "measured by the card"
    with_it = f", {positives.value:.0f} of them with it," if positives else ""
    where_measured = (
        "at one threshold" if len(drawn) == 1 else "at two thresholds, drawn through both and a little beyond"
    )
    return ByCard(
        points=drawn,
        floor=1 / (2 * max(fewest, 1.0) + 2),
        words=f"{measured}{with_it} {where_measured}; this site has judged {present} with it "
        f"and {absent} without, and {ENOUGH} of each are needed to tell its own",
    )


def _where(output: str) -> tuple[str, ...]:
    return (BINARY,) if output == BINARY else ("findings", output)


def _rate(figure: Figure) -> Rate:
    return Rate(value=figure.value, low=figure.low, high=figure.high)
