"""How far two samples of a scanner's films are apart: arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.watching import DriftRules, Measure, Shift

BINS: Final = 50  # of the binary model's probability, equally wide
_PARTS: Final = 10  # into which the baseline's scores are cut, about equally many films in each
# What chi-squared reaches once in 10,000 times, by degrees of freedom from 1: scipy.stats.chi2.ppf(0.9999, n).
_RARE: Final = (15.14, 18.42, 21.11, 23.51, 25.74, 27.86, 29.88, 31.83, 33.72)
_RARE_Z: Final = 3.72  # what a standard normal variable reaches so rarely
_SURE_Z: Final = 1.96  # 95 %


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Films of one scanner, counted."""

    scores: tuple[int, ...] = (0,) * BINS  # films that were read, by the binary model's probability
    not_analysed: int = 0
    polarity: int = 0  # of those that were read, films that had to be turned from black on white

    @property
    def read(self) -> int:
        """Films that were read."""
        return sum(self.scores)

    @property
    def films(self) -> int:
        """All of them."""
        return self.read + self.not_analysed

    @property
    def mean(self) -> float | None:
        """Of the scores, to half a bin; None without any."""
        total = sum((number + 0.5) / BINS * count for number, count in enumerate(self.scores))
        return total / self.read if self.read else None

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {"scores": list(self.scores), "not_analysed": self.not_analysed, "polarity": self.polarity}


def sample_from_json(raw: dict[str, Any]) -> Sample:
    """Back again."""
    return Sample(scores=tuple(raw["scores"]), not_analysed=raw["not_analysed"], polarity=raw["polarity"])


def shifts(before: Sample, now: Sample, rules: DriftRules) -> list[Shift]:
    """Each measure of `now` beside that of `before`; none where there are too few films to say."""
    if now.films < rules.films // 2:
        return []
    found = [
        _share(Measure.NOT_ANALYSED, (before.not_analysed, before.films), (now.not_analysed, now.films), rules),
    ]
    if min(before.read, now.read) >= rules.films // 4:
        index, limit = stability(before.scores, now.scores)
        if math.isfinite(limit):
            found.insert(0, Shift(measure=Measure.SCORES, value=index, limit=max(limit, rules.scores)))
        found.append(_share(Measure.POLARITY, (before.polarity, before.read), (now.polarity, now.read), rules))
    return found


def stability(before: Sequence[int], now: Sequence[int]) -> tuple[float, float]:
    """The population stability index of two counts over the same bins, and what chance alone reaches once in 10,000.

    Bins are joined until each holds a tenth of `before`. Of equal populations the index is distributed as chi-squared
    times (1/n + 1/m) (Yurdakul 2018), so that few films must differ by more than many.
    """
    first, second = _joined(before, now)
    parts = len(first)
    if parts < 2:
        return 0.0, math.inf
    n, m = sum(first), sum(second)
    index = 0.0
    for a, b in zip(first, second, strict=True):
        p, q = (a + 0.5) / (n + 0.5 * parts), (b + 0.5) / (m + 0.5 * parts)  # an empty part is rare, not impossible
        index += (q - p) * math.log(q / p)
    return index, _RARE[min(parts - 1, len(_RARE)) - 1] * (1 / n + 1 / m)


def wilson(count: int, of: int) -> tuple[float, float] | None:
    """95 % score interval of a share (Wilson 1927); None of nothing."""
    if not of:
        return None
    p, z2 = count / of, _SURE_Z**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    width = _SURE_Z * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return max(0.0, middle - width), min(1.0, middle + width)


def _joined(before: Sequence[int], now: Sequence[int]) -> tuple[list[int], list[int]]:
    wanted = sum(before) / _PARTS
    first, second = [0], [0]
    for a, b in zip(before, now, strict=True):
        if first[-1] >= wanted and len(first) < _PARTS:
            first.append(0)
            second.append(0)
        first[-1] += a
        second[-1] += b
    if len(first) > 1 and first[-1] < wanted / 2:  # what is left over at the end
        last, last_now = first.pop(), second.pop()
        first[-1] += last
        second[-1] += last_now
    return first, second


def _share(measure: Measure, before: tuple[int, int], now: tuple[int, int], rules: DriftRules) -> Shift:
    """A share that has risen by more than `rules.share`, and by more than chance."""
    p, q = (count / of if of else 0.0 for count, of in (before, now))
    together = (before[0] + now[0]) / max(1, before[1] + now[1])
    chance = _RARE_Z * math.sqrt(together * (1 - together) * (1 / max(1, before[1]) + 1 / max(1, now[1])))
    return Shift(measure=measure, value=q, limit=min(1.0, p + max(rules.share, chance)), before=p)
