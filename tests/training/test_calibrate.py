from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from schemas.card import Calibration
from training.calibrate import balanced_point, calibration_error, operating_point, platt, probability, reliability


def test_finds_scale_and_offset() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0.5, 2.0, 20_000)
    truth = rng.random(20_000) < probability(logits, Calibration(scale=0.6, offset=-1.2))
    got = platt(logits, truth)
    assert got.scale == pytest.approx(0.6, abs=0.03)
    assert got.offset == pytest.approx(-1.2, abs=0.06)


def test_mean_probability_is_the_prevalence() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(2000) < 0.1
    logits = rng.normal(5.0, 30.0, 2000) + 20 * truth
    assert probability(logits, platt(logits, truth)).mean() == pytest.approx(truth.mean(), abs=0.01)


@pytest.mark.parametrize("positives", [0, 1, 3, 50])
def test_a_ranking_is_never_turned_round(positives: int) -> None:
    """Few positives, and all of them at the wrong end."""
    logits = np.linspace(-3, 3, 50)
    got = platt(logits, np.arange(50) < positives)
    assert got.scale > 0
    assert np.isfinite(got.offset)
    assert (np.diff(probability(logits, got)) > 0).all()


def test_extreme_logits_stay_probabilities() -> None:
    p = probability(np.array([-1e5, 0.0, 1e5]), Calibration())
    assert p.tolist() == [0.0, 0.5, 1.0]


def test_operating_point_reaches_the_sensitivity_and_no_more() -> None:
    rng = np.random.default_rng(2)
    p, truth = rng.random(1000), rng.random(1000) < 0.2
    p[truth] = np.sqrt(p[truth])
    t = operating_point(p, truth, sensitivity=0.8)
    reached = (p[truth] >= t).mean()
    assert 0.8 <= reached < 0.81


def test_operating_point_lies_between_two_films() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    truth = np.array([0, 1, 1, 1, 1, 1])
    assert operating_point(p, truth, sensitivity=0.8) == pytest.approx(0.25)


def test_with_too_few_positives_one_film_in_twenty_lies_above() -> None:
    p = np.linspace(0, 1, 1000)
    truth = np.arange(1000) < 4
    assert (p >= operating_point(p, truth)).mean() == pytest.approx(0.05, abs=0.002)


def test_balanced_point_is_the_best_of_all() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(500) < 0.3
    p = np.round(probability(rng.normal(0, 1, 500) + truth, Calibration()), 2)

    def balanced(threshold: float) -> float:
        return float((p[truth] >= threshold).mean() + (p[~truth] < threshold).mean())

    t = balanced_point(p, truth)
    assert balanced(t) == pytest.approx(max(balanced(x) for x in np.unique(p)))
    assert t not in p


@pytest.mark.parametrize("positives", [0, 4, 16, 20])
def test_without_enough_of_both_kinds_there_is_no_balanced_point(positives: int) -> None:
    assert balanced_point(np.linspace(0, 1, 20), np.arange(20) < positives) == 0.5


def test_a_ranking_turned_round_still_has_a_balanced_point() -> None:
    p = np.linspace(0, 1, 20)
    assert 0 <= balanced_point(p, np.arange(20) < 10) <= 1


def test_reliability_is_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    p = rng.random(1000) ** 3
    truth = rng.random(1000) < p
    got = reliability(p, truth)
    observed, predicted = calibration_curve(truth, p, n_bins=10, strategy="quantile")
    assert np.allclose(got.observed, observed)
    assert np.allclose(got.predicted, predicted)
    assert got.films.sum() == 1000
    assert set(got.films.tolist()) == {100}


def test_calibration_error_is_the_mean_distance() -> None:
    p = np.repeat([0.2, 0.6], 50)
    truth = np.concatenate([np.arange(50) < 10, np.arange(50) < 45])
    bins = reliability(p, truth)
    assert bins.films.tolist() == [50, 50]
    assert calibration_error(bins) == pytest.approx((0.0 + 0.3) / 2)


def test_films_that_all_score_alike_are_one_bin() -> None:
    bins = reliability(np.full(7, 0.3), np.arange(7) < 2)
    assert bins.films.tolist() == [7]
    assert calibration_error(bins) == pytest.approx(abs(2 / 7 - 0.3))


def test_calibration_mends_what_a_weighted_loss_bends() -> None:
    """Positives counted eightfold move the offset by log 8, which no temperature could move back."""
    rng = np.random.default_rng(6)
    honest = rng.normal(-2.5, 1.2, 6000)
    truth = rng.random(6000) < probability(honest, Calibration())
    logits = honest + np.log(8.0)
    fitted = platt(logits[:3000], truth[:3000])
    before, after = (
        calibration_error(reliability(probability(logits[3000:], c), truth[3000:])) for c in (Calibration(), fitted)
    )
    assert before > 0.2
    assert after < 0.02
