"""From logits to probabilities, and where to cut them. Fitted on validation films, never on test films.

Platt's two numbers, and no temperature beside them: a temperature alone (Guo et al., ICML 2017) cannot move an offset,
and every loss that counts positives more than negatives leaves one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from schemas.card import Calibration

ENOUGH = 5  # positives, below which a sensitivity cannot be aimed at


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was predicted against what was seen, in bins that hold about as many films each; B of them, rising."""

    films: NDArray[np.int64]  # (B,), > 0
    predicted: NDArray[np.float64]  # (B,) mean probability
    observed: NDArray[np.float64]  # (B,) share of positives


def platt(logits: NDArray[np.floating], truth: NDArray[Any]) -> Calibration:
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


def operating_point(probabilities: NDArray[np.floating], truth: NDArray[Any], *, sensitivity: float = 0.8) -> float:
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


def balanced_point(probabilities: NDArray[np.floating], truth: NDArray[Any]) -> float:
    """The threshold t at which p >= t has the best balanced accuracy (Youden, Cancer 1950).

    Half-way to the next lower probability, as an operating point; the highest of several that are as good. With fewer
    than `ENOUGH` positives or negatives there is none: then 0.5.
    """
    positive = truth > 0.5
    if min(positive.sum(), (~positive).sum()) < ENOUGH:
        return 0.5
    alarms, hits, cuts = roc_curve(positive, probabilities, drop_intermediate=False)
    best = max(1, int(np.argmax(hits - alarms)))  # the first cut is infinite: nothing lies above it
    lower = cuts[best + 1] if best + 1 < len(cuts) else cuts[best]
    return round(float((cuts[best] + lower) / 2.0), 6)


def reliability(probabilities: NDArray[np.floating], truth: NDArray[Any], bins: int = 10) -> Reliability:
    """Bins of about as many films each: most findings are rare, and bins of equal width would leave all films in one.

    The edges are quantiles, as scikit-learn's `calibration_curve(strategy="quantile")` cuts them; bins without a film
    are left out.

    Parameters
    ----------
    probabilities, truth:
        (N,), N >= 1.
    """
    edges = np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    member = np.searchsorted(edges, probabilities)
    films = np.bincount(member, minlength=bins)
    kept = films > 0
    predicted = np.bincount(member, weights=probabilities, minlength=bins)[kept] / films[kept]
    observed = np.bincount(member, weights=truth > 0.5, minlength=bins)[kept] / films[kept]
    return Reliability(films=films[kept], predicted=predicted, observed=observed)


def calibration_error(bins: Reliability) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015; bins of equal mass: Nixon et al., CVPRW 2019)."""
    return float(np.average(np.abs(bins.predicted - bins.observed), weights=bins.films))
