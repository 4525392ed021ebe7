"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def positive_weights(targets: NDArray[np.float32], ceiling: float = 8.0) -> NDArray[np.float32]:
    """float32 (K,): square root of the odds against each label, so that rare ones count without taking over.

    Weights distort probabilities; calibration puts that right.
    """
    share = targets.mean(axis=0).clip(1e-6, 1.0 - 1e-6)
    weights: NDArray[np.float32] = np.sqrt((1.0 - share) / share).clip(1.0, ceiling).astype(np.float32)
    return weights


def weighted_bce(weights: NDArray[np.float32]) -> Callable[[Any, Any], Any]:
    """Cross entropy of logits (N, K) against targets in [0, 1] (soft ones too), positives weighted; mean over both."""

    def loss(target: Any, logit: Any) -> Any:
        ops = keras.ops
        # -log(sigmoid(z)) = softplus(-z)
        positive = target * ops.convert_to_tensor(weights) * ops.softplus(-logit)
        return ops.mean(positive + (1.0 - target) * ops.softplus(logit), axis=-1)

    return loss
