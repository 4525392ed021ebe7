"""How far two samples are apart: against the textbook, and against chance."""

from __future__ import annotations

import math
import random

import pytest

from schemas.scanner import LONGEST, Scanner
from schemas.watching import DriftRules, Measure
from worker.record.shift import BINS, Sample, sample_from_json, shifts, stability, wilson

RULES = DriftRules()


def counted(scores: list[float]) -> tuple[int, ...]:
    bins = [0] * BINS
    for score in scores:
        bins[min(BINS - 1, int(score * BINS))] += 1
    return tuple(bins)


def drawn(seed: int, count: int, a: float = 2, b: float = 5) -> Sample:
    source = random.Random(seed)
    return Sample(scores=counted([source.betavariate(a, b) for _ in range(count)]))


def test_the_index_is_that_of_the_textbook() -> None:
    before, now = [500, 500], [700, 300]
    index, _ = stability(before, now)
    assert index == pytest.approx((0.7 - 0.5) * math.log(0.7 / 0.5) + (0.3 - 0.5) * math.log(0.3 / 0.5), rel=0.01)
    assert stability(before, before)[0] == 0


def test_all_in_one_bin_says_nothing() -> None:
    index, limit = stability([0, 300, 0], [0, 0, 300])
    assert (index, limit) == (0.0, math.inf)
    one_bin = Sample(scores=counted([0.5] * 200))
    assert Measure.SCORES not in {shift.measure for shift in shifts(one_bin, drawn(1, 200), RULES)}


def test_chance_does_not_alarm() -> None:
    """One in 10,000: not in 400 pairs of samples of the same scanner."""
    for seed in range(400):
        found = shifts(drawn(seed, 200), drawn(10_000 + seed, 120), RULES)
        assert not any(shift.is_over for shift in found), seed


@pytest.mark.parametrize("count", [120, 1000])
def test_a_shift_of_the_scores_alarms(count: int) -> None:
    scores = next(s for s in shifts(drawn(1, 200), drawn(2, count, 4, 3), RULES) if s.measure is Measure.SCORES)
    assert scores.is_over


def test_a_small_shift_of_many_films_is_not_worth_an_alarm() -> None:
    scores = next(s for s in shifts(drawn(1, 5000), drawn(2, 5000, 2.1, 5), RULES) if s.measure is Measure.SCORES)
    assert (scores.limit, scores.is_over) == (RULES.scores, False)


def test_shares_alarm_by_more_than_chance_and_more_than_the_rule() -> None:
    before = Sample(scores=drawn(1, 190).scores, not_analysed=10, polarity=0)
    few = Sample(scores=drawn(2, 180).scores, not_analysed=18, polarity=2)
    many = Sample(scores=drawn(2, 150).scores, not_analysed=50, polarity=40)
    assert not any(shift.is_over for shift in shifts(before, few, RULES) if shift.measure is not Measure.SCORES)
    over = {shift.measure for shift in shifts(before, many, RULES) if shift.is_over}
    assert over == {Measure.NOT_ANALYSED, Measure.POLARITY}


def test_too_few_films_say_nothing() -> None:
    assert shifts(drawn(1, 200), drawn(2, 99, 9, 1), RULES) == []
    unread = Sample(not_analysed=150)
    assert [shift.measure for shift in shifts(drawn(1, 200), unread, RULES)] == [Measure.NOT_ANALYSED]


def test_a_sample_is_kept_as_it_is() -> None:
    sample = Sample(scores=drawn(1, 30).scores, not_analysed=3, polarity=2)
    assert sample_from_json(sample.to_json()) == sample
    assert (sample.films, sample.read) == (33, 30)
    assert Sample().mean is None
    assert Sample(scores=counted([0.25, 0.75])).mean == pytest.approx(0.5, abs=1 / BINS)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilsons_interval(count: int, of: int, low: float, high: float) -> None:
    found = wilson(count, of)
    assert found == pytest.approx((low, high), abs=2e-4)
    assert wilson(0, 0) is None


def test_a_header_may_say_anything() -> None:
    scanner = Scanner(manufacturer="A  cme\t" + "x" * 500, model="", view="")
    assert len(scanner.manufacturer) <= LONGEST
    assert scanner.words.startswith("A cme x")
    assert Scanner().words == "unnamed scanner, no view"
