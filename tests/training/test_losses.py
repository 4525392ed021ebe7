from __future__ import annotations

import keras
import numpy as np

from training.losses import positive_weights, weighted_bce


def test_without_weights_it_is_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    logits, wanted = rng.normal(0, 5, (8, 15)).astype(np.float32), rng.random((8, 15)).astype(np.float32)
    ours = np.asarray(weighted_bce(np.ones(15, np.float32))(wanted, logits))
    theirs = np.asarray(keras.losses.binary_crossentropy(wanted, logits, from_logits=True))
    assert np.allclose(ours, theirs, atol=1e-5)


def test_weights_count_for_positives_alone() -> None:
    loss = weighted_bce(np.array([3.0], np.float32))
    one, zero, logit = (np.array([[v]], np.float32) for v in (1.0, 0.0, 0.7))
    assert np.allclose(np.asarray(loss(one, logit)), 3 * np.log1p(np.exp(-0.7)), atol=1e-6)
    assert np.allclose(np.asarray(loss(zero, logit)), np.log1p(np.exp(0.7)), atol=1e-6)


def test_large_logits_stay_finite() -> None:
    loss = weighted_bce(np.ones(2, np.float32))
    assert np.isfinite(np.asarray(loss(np.ones((1, 2), np.float32), np.array([[1e4, -1e4]], np.float32)))).all()


def test_rare_labels_weigh_more_up_to_a_ceiling() -> None:
    wanted = np.zeros((1000, 4), np.float32)
    wanted[:500, 0], wanted[:100, 1], wanted[:1, 2] = 1, 1, 1
    assert np.allclose(positive_weights(wanted), [1.0, 3.0, 8.0, 8.0])
