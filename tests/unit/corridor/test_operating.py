"""How good a threshold is: counted here where there is enough, else exact where the card was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.preview import Goodness, Rate
from tests.unit.corridor.past import CARD
from worker.corridor.operating import (
    ENOUGH,
    ENOUGH_REPORTS,
    ByCard,
    ByPeople,
    Prevalence,
    goodness,
    ppv,
    prevalence_of,
    source_of,
    wilson,
)
from worker.record.judged import JudgedStudy

TENTH = Prevalence(value=0.1, words="")


def judged(score: float, there: bool, *, by: str = "reported") -> JudgedStudy:
    said: dict[str, dict[str, bool]] = {"reported": {}, "judged": {}} | {by: {"Mass": there}}
    return JudgedStudy(scores={"Mass": score}, **said)


def enough(by: str = "reported") -> list[JudgedStudy]:
    """Ten with it at 0.05, 0.15, …, and twenty without it, half of these at 0.02 and half at 0.5."""
    return [judged(0.05 + n / 10, True, by=by) for n in range(10)] + [
        judged(0.02 if n % 2 else 0.5, False, by=by) for n in range(20)
    ]


def test_this_site_is_counted_where_people_judged_enough() -> None:
    source = source_of(CARD, enough(), "Mass")
    assert isinstance(source, ByPeople)
    sensitivity, specificity = source.at(0.3)
    assert (sensitivity.value, specificity.value) == (0.7, 0.5)
    sensitivity, specificity = source.at(0.5)  # a finding reaches its threshold when it is at it
    assert (sensitivity.value, specificity.value) == (0.5, 0.5)
    assert source.words == "counted on 30 studies of this site that people judged, 10 of them with it"


def test_who_sees_only_what_was_flagged_sees_no_misses() -> None:
    source = source_of(CARD, enough("judged"), "Mass")
    assert source is not None
    assert "30 by readers, who mostly judge what was flagged: sensitivity looks better than it is" in source.words


def test_the_report_counts_before_the_reader() -> None:
    both = [replace(study, judged={"Mass": not study.reported["Mass"]}) for study in enough()]
    source = source_of(CARD, both, "Mass")
    assert isinstance(source, ByPeople)
    assert len(source.present) == 10


@pytest.mark.parametrize("output", ["Mass", "Pneumothorax", "binary"])
def test_the_card_is_exact_where_it_was_measured_and_falls_and_rises_between(output: str) -> None:
    source = source_of(CARD, enough()[: ENOUGH - 1], output)
    assert isinstance(source, ByCard)
    where: Any = CARD.metrics["test"]
    found = where["binary"] if output == "binary" else where["findings"][output]
    for at in (found, found["at_balanced_point"]):
        assert source.at(at["threshold"]) == (Rate(**at["sensitivity"]), Rate(**at["specificity"]))
    low, high = source.measured_at
    drawn = [known for n in range(11) if (known := source.at(low + (high - low) * n / 10)) is not None]
    assert [s.value for s, _ in drawn] == sorted((s.value for s, _ in drawn), reverse=True)
    assert [s.value for _, s in drawn] == sorted(s.value for _, s in drawn)
    assert all(rate.low is None for pair in drawn[1:-1] for rate in pair)  # drawn, not measured
    assert len(drawn) == 11
    assert "drawn through both" in source.words


def test_far_from_what_was_measured_nothing_is_told() -> None:
    source = source_of(CARD, [], "Pneumothorax")
    assert source is not None
    low, high = source.measured_at
    assert source.at(high * 2) is not None
    assert source.at(low / 2) is not None
    assert source.at(high * 5) is None
    assert source.at(low / 5) is None
    assert goodness(source, TENTH, high * 5) is None


def test_of_a_card_that_was_measured_at_one_threshold_that_one_is_told() -> None:
    """The packaged card's pneumonia: the balanced point is the operating point."""
    source = source_of(CARD, [], "Pneumonia")
    assert source is not None
    (threshold,) = source.measured_at
    assert source.at(threshold) is not None
    assert source.at(threshold * 1.1) is None
    assert "at one threshold" in source.words


def test_the_line_is_continuous_at_the_measured_points() -> None:
    source = source_of(CARD, [], "Mass")
    assert source is not None
    for threshold in source.measured_at:
        beside, at = source.at(threshold + 1e-5), source.at(threshold)
        assert beside is not None
        assert at is not None
        assert beside[0].value == pytest.approx(at[0].value, abs=1e-3)
        assert beside[1].value == pytest.approx(at[1].value, abs=1e-3)


def test_a_card_that_was_not_measured_tells_nothing() -> None:
    assert source_of(replace(CARD, metrics={}), [], "Mass") is None
    assert prevalence_of(replace(CARD, metrics={}), [], "Mass") == Prevalence(value=None, words="not known")


def test_the_prevalence_is_this_sites_where_enough_was_reported() -> None:
    studies = [judged(0.5, n < 5) for n in range(ENOUGH_REPORTS)]
    assert prevalence_of(CARD, studies, "Mass") == Prevalence(
        value=0.1, words=f"by {ENOUGH_REPORTS} signed reports of this site"
    )
    fewer = prevalence_of(CARD, studies[1:], "Mass")
    assert "as the card expects it" in fewer.words
    by_readers = [judged(0.5, True, by="judged") for _ in range(ENOUGH_REPORTS)]
    assert prevalence_of(CARD, by_readers, "Mass") == fewer  # they look at what was flagged, not at everybody


def test_the_predictive_value_is_bayes() -> None:
    assert ppv(Rate(value=0.9), Rate(value=0.8), TENTH) == pytest.approx(0.09 / (0.09 + 0.18))
    assert ppv(Rate(value=0.0), Rate(value=1.0), TENTH) is None
    assert ppv(Rate(value=0.9), Rate(value=0.8), Prevalence(value=None, words="")) is None
    source = source_of(CARD, enough(), "Mass")
    assert source is not None
    assert goodness(source, TENTH, 0.3) == Goodness(
        sensitivity=wilson(7, 10), specificity=wilson(10, 20), ppv=pytest.approx(0.07 / (0.07 + 0.45))
    )


def test_intervals_are_wilsons() -> None:
    """Newcombe, Statist. Med. 1998, table I: 81 of 263, 15 of 148, 0 of 20."""
    for count, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        rate = wilson(count, of)
        assert (rate.low, rate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
