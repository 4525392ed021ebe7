"""From logits to probabilities, and where to cut them. Fitted on validation films, never on test films."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.card import Calibration

ENOUGH = 5  # positives, below which a sensitivity cannot be aimed at


def platt(logits: NDArray[np.floating], truth: NDArray[np.floating]) -> Calibration:
    """Platt scaling (Platt 1999) by Newton's method.

    The scale is kept positive, so that calibration never turns a ranking round, and is drawn towards 1 (a normal prior
    on its logarithm), so that a label with a handful of positives keeps a sensible one. Targets are smoothed as in the
    paper.

    Parameters
    ----------
    logits, truth:
        (N,), N >= 1; truth is 0 or 1.
    """
    z = logits.astype(np.float64)
    positive = truth > 0.5
    n = int(positive.sum())
    target = np.where(positive, (n + 1.0) / (n + 2.0), 1.0 / (len(z) - n + 2.0))

    def cost(theta: NDArray[np.float64]) -> float:
        u = np.exp(theta[0]) * z + theta[1]
        return float(np.sum(np.logaddexp(0.0, u) - target * u) + 0.5 * theta[0] ** 2)

    theta = np.array([0.0, float(np.log(target.mean() / (1.0 - target.mean())) - z.mean())])
    for _ in range(100):
        slope = np.exp(theta[0]) * z
        p = probability(z, Calibration(scale=float(np.exp(theta[0])), offset=float(theta[1])))
        gradient = np.array([np.sum((p - target) * slope) + theta[0], np.sum(p - target)])
        jacobian = np.stack([slope, np.ones_like(z)])
        # Gauss-Newton: the Hessian without its indefinite part, plus the prior.
        hessian = (jacobian * (p * (1.0 - p))) @ jacobian.T + np.diag([1.0, 1e-9])
        step = np.linalg.solve(hessian, gradient)
        while cost(theta - step) > cost(theta) and np.abs(step).max() > 1e-9:
            step *= 0.5
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(scale=round(float(np.exp(theta[0])), 6), offset=round(float(theta[1]), 6))


def probability(logits: NDArray[np.floating], calibration: Calibration) -> NDArray[np.float64]:
    """Calibrated probabilities, any shape."""
    u = calibration.scale * logits.astype(np.float64) + calibration.offset
    return np.exp(-np.logaddexp(0.0, -u))


def operating_point(
    probabilities: NDArray[np.floating], truth: NDArray[np.floating], *, sensitivity: float = 0.8
) -> float:
    """The highest threshold t such that p >= t finds at least this share of the positives.

    It lies half-way to the next lower probability, so that rounding elsewhere does not move a film across it. With
    fewer than `ENOUGH` positives no sensitivity can be aimed at: then 5 % of the films lie above it.
    """
    found = np.sort(probabilities[truth > 0.5])[::-1]
    if len(found) < ENOUGH:
        return round(float(np.quantile(probabilities, 0.95)), 6)
    last = found[int(np.ceil(sensitivity * len(found))) - 1]
    below = probabilities[probabilities < last]
    return round(float((last + below.max()) / 2.0 if below.size else last), 6)
