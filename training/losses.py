"""What training minimises: a loss on logits, for hard and for soft targets.

Each weighs films in its own way, which distorts probabilities; calibration puts that right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.description import Loss

MARGIN = 0.05  # asymmetric: negatives that the network gives less than this cost nothing


def positive_weights(targets: NDArray[np.float32], ceiling: float = 8.0) -> NDArray[np.float32]:
    """float32 (K,): square root of the odds against each label, so that rare ones count without taking over."""
    share = targets.mean(axis=0).clip(1e-6, 1.0 - 1e-6)
    weights: NDArray[np.float32] = np.sqrt((1.0 - share) / share).clip(1.0, ceiling).astype(np.float32)
    return weights


def loss_of(description: Loss, targets: NDArray[np.float32], main: int) -> Callable[[Any, Any], Any]:
    """The loss of logits (N, K) against targets (N, K) in [0, 1]: one value for each film.

    - "bce": cross entropy.
    - "weighted": positives weighted by `positive_weights`.
    - "focal": easy films count little, by (1 - p)^gamma and p^gamma (Lin et al., ICCV 2017).
    - "asymmetric": only easy negatives count little, and very easy ones not at all (Ridnik et al., ICCV 2021).

    Parameters
    ----------
    targets:
        Those of the training films, (N, K): what weights are taken from.
    main:
        How many of the columns are the model's own; the rest are auxiliary and cost plain cross entropy.
    """
    ops = keras.ops
    outputs = targets.shape[1]
    share = np.full(outputs, description.auxiliary_weight, np.float32)
    share[:main] = 1.0
    share /= main
    weights = np.ones(outputs, np.float32)
    if description.kind == "weighted":
        weights[:main] = positive_weights(np.round(targets[:, :main]), description.ceiling)
    own = np.arange(outputs) < main

    def loss(target: Any, logit: Any) -> Any:
        # -log(p) and -log(1 - p), p = sigmoid(logit)
        miss, alarm = ops.softplus(-logit), ops.softplus(logit)
        if description.kind in ("focal", "asymmetric"):
            p = ops.sigmoid(logit)
            if description.kind == "focal":
                hard_miss = miss * (1.0 - p) ** description.gamma
            else:
                hard_miss = miss
                p = ops.maximum(p - MARGIN, 0.0)
                alarm = ops.where(own, -ops.log(1.0 - p), alarm)
            miss = ops.where(own, hard_miss, miss)
            alarm = ops.where(own, alarm * p**description.gamma, alarm)
        return ops.sum(share * (weights * target * miss + (1.0 - target) * alarm), axis=-1)

    return loss
