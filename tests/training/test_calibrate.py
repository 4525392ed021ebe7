from __future__ import annotations

import numpy as np
import pytest

from schemas.card import Calibration
from training.calibrate import operating_point, platt, probability


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
