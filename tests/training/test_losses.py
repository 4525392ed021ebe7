from __future__ import annotations

import keras
import numpy as np
import pytest

from training.description import Loss
from training.losses import loss_of, positive_weights

RNG = np.random.default_rng(0)


def cost(kind: str, wanted: object, logits: object, main: int | None = None, **options: float) -> np.ndarray:
    w, z = np.asarray(wanted, np.float32), np.asarray(logits, np.float32)
    loss = loss_of(Loss(kind=kind, **options), w, w.shape[1] if main is None else main)  # type: ignore[arg-type]
    return np.asarray(loss(w, z))


def test_bce_is_cross_entropy_of_hard_and_soft_targets() -> None:
    logits, wanted = RNG.normal(0, 5, (8, 15)).astype(np.float32), RNG.random((8, 15)).astype(np.float32)
    theirs = np.asarray(keras.losses.binary_crossentropy(wanted, logits, from_logits=True))
    assert np.allclose(cost("bce", wanted, logits), theirs, atol=1e-5)


def test_focal_and_asymmetric_without_gamma_are_cross_entropy() -> None:
    logits, wanted = RNG.normal(0, 3, (8, 4)), RNG.random((8, 4)).round()
    assert np.allclose(cost("focal", wanted, logits, gamma=0), cost("bce", wanted, logits), atol=1e-5)
    positives = np.ones((8, 4))
    assert np.allclose(cost("asymmetric", positives, logits, gamma=0), cost("bce", positives, logits), atol=1e-5)


def test_focal_agrees_with_keras() -> None:
    logits, wanted = RNG.normal(0, 3, (8, 4)).astype(np.float32), RNG.random((8, 4)).round().astype(np.float32)
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=2.0, from_logits=True, reduction=None)(wanted, logits)
    assert np.allclose(cost("focal", wanted, logits), np.asarray(theirs), atol=1e-5)


def test_asymmetric_forgets_easy_negatives_and_no_positives() -> None:
    p = np.array([[0.04], [0.3]])
    logit = np.log(p / (1 - p))
    easy, hard = cost("asymmetric", np.zeros((2, 1)), logit)
    assert easy == 0
    assert hard == pytest.approx(-np.log(1 - 0.25) * 0.25**2, rel=1e-4)
    assert np.allclose(cost("asymmetric", np.ones((2, 1)), logit), -np.log(p[:, 0]), rtol=1e-4)


def test_weights_count_for_positives_alone() -> None:
    wanted = np.zeros((10, 1), np.float32)
    wanted[0] = 1  # odds of 9 to 1 against: a weight of 3
    got = cost("weighted", wanted, np.full((10, 1), 0.7))
    assert got[0] == pytest.approx(3 * np.log1p(np.exp(-0.7)), rel=1e-5)
    assert np.allclose(got[1:], np.log1p(np.exp(0.7)))


@pytest.mark.parametrize("kind", ["bce", "weighted", "focal", "asymmetric"])
def test_auxiliary_outputs_cost_their_share_of_plain_cross_entropy(kind: str) -> None:
    wanted, logits = RNG.random((6, 5)).round(), RNG.normal(0, 2, (6, 5))
    alone = cost(kind, wanted[:, :3], logits[:, :3])
    both = cost(kind, wanted, logits, main=3, auxiliary_weight=0.5)
    extra = cost("bce", wanted[:, 3:], logits[:, 3:])  # the mean over two
    assert np.allclose(both, alone + 0.5 * 2 * extra / 3, atol=1e-5)


@pytest.mark.parametrize("kind", ["bce", "weighted", "focal", "asymmetric"])
def test_large_logits_stay_finite(kind: str) -> None:
    for wanted in ([[1.0, 1.0]], [[0.0, 0.0]]):
        assert np.isfinite(cost(kind, wanted, [[1e4, -1e4]])).all()


def test_rare_labels_weigh_more_up_to_a_ceiling() -> None:
    wanted = np.zeros((1000, 4), np.float32)
    wanted[:500, 0], wanted[:100, 1], wanted[:1, 2] = 1, 1, 1
    assert np.allclose(positive_weights(wanted), [1.0, 3.0, 8.0, 8.0])
