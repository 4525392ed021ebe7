from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluate import auroc, average_precision, figures, interval, macro_auroc

RNG = np.random.default_rng(0)
TRUTH = RNG.random(400) < 0.3
SCORES = RNG.random(400) * 0.7 + TRUTH * 0.3


def test_values_are_those_of_the_films() -> None:
    got = figures(TRUTH, SCORES, 0.5, range(400), rounds=200)
    assert got["films"] == 400
    assert got["positives"] == TRUTH.sum()
    assert got["auroc"]["value"] == pytest.approx(roc_auc_score(TRUTH, SCORES), abs=1e-4)
    assert got["sensitivity"]["value"] == pytest.approx((SCORES[TRUTH] >= 0.5).mean(), abs=1e-4)
    assert got["specificity"]["value"] == pytest.approx((SCORES[~TRUTH] < 0.5).mean(), abs=1e-4)
    for name in ("auroc", "average_precision", "sensitivity", "specificity"):
        assert 0 <= got[name]["low"] < got[name]["value"] < got[name]["high"] <= 1
    json.dumps(got, allow_nan=False)


def test_patients_are_drawn_whole() -> None:
    """The same film ten times tells no more than once: the interval must not shrink."""
    alone = figures(TRUTH[:60], SCORES[:60], 0.5, range(60), rounds=300)["auroc"]
    copies = figures(np.tile(TRUTH[:60], 10), np.tile(SCORES[:60], 10), 0.5, [*range(60)] * 10, rounds=300)["auroc"]
    assert copies["high"] - copies["low"] == pytest.approx(alone["high"] - alone["low"], abs=1e-9)


def test_what_cannot_be_told_is_none() -> None:
    got = figures(np.zeros(20), SCORES[:20], 0.5, range(20), rounds=50)
    assert got["auroc"] == {"value": None, "low": None, "high": None}
    assert got["sensitivity"]["value"] is None
    assert got["specificity"]["value"] is not None
    json.dumps(got, allow_nan=False)


def test_same_seed_same_interval() -> None:
    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights * SCORES).sum(axis=1) / weights.sum(axis=1)

    assert interval(mean, range(400), rounds=50) == interval(mean, range(400), rounds=50)


def test_weighted_measures_agree_with_scikit_learn() -> None:
    """Ties, and films that a round leaves out or counts several times."""
    scores = np.round(SCORES, 1)
    weights = RNG.multinomial(400, np.full(400, 1 / 400), size=20).astype(float)
    ours = auroc(TRUTH, scores, weights), average_precision(TRUTH, scores, weights)
    for measure, got in zip((roc_auc_score, average_precision_score), ours, strict=True):
        wanted = [measure(TRUTH, scores, sample_weight=w) for w in weights]
        assert np.allclose(got, wanted, atol=1e-12)


def test_macro_leaves_out_labels_without_both_kinds() -> None:
    truth = np.stack([TRUTH, np.zeros(400), np.ones(400)], axis=1)
    scores = np.stack([SCORES, SCORES, SCORES], axis=1)
    assert macro_auroc(truth, scores)[0] == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert np.isnan(macro_auroc(truth[:, 1:], scores[:, 1:])[0])
