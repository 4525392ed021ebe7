"""How good a model is, with how sure we are: figures on one side of the split, 95 % intervals by patient bootstrap.

Every measure takes weights (R, N), how often each of N films counts in each of R rounds, and answers R values at once:
a thousand rounds for sixteen outputs are then seconds, not minutes. NaN where a round cannot be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Measure: TypeAlias = Callable[[Floats], Floats]
Figure: TypeAlias = dict[str, float | None]  # value, low, high; None where it cannot be told


def figures(
    truth: NDArray[Any],
    probabilities: NDArray[np.floating],
    threshold: float,
    patients: Sequence[int],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """One output of a model: AUROC, average precision, sensitivity and specificity at the threshold, with intervals.

    Parameters
    ----------
    truth, probabilities:
        (N,)
    patients:
        Whose film it is, (N,): films of one patient are drawn together.
    """
    positive = truth > 0.5
    above = probabilities >= threshold
    measures: dict[str, Measure] = {
        "auroc": lambda w: auroc(positive, probabilities, w),
        "average_precision": lambda w: average_precision(positive, probabilities, w),
        "sensitivity": lambda w: _share(above, w * positive),
        "specificity": lambda w: _share(~above, w * ~positive),
    }
    return {"films": len(truth), "positives": int(positive.sum())} | {
        name: interval(measure, patients, rounds=rounds, seed=seed) for name, measure in measures.items()
    }


def interval(measure: Measure, patients: Sequence[int], *, rounds: int = 1000, seed: int = 0) -> Figure:
    """The measure with every film once, and its 2.5 and 97.5 percentiles when as many patients are drawn again.

    Low and high are None when nine tenths of the rounds cannot be measured.
    """
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    n = int(member.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=rounds)
    values = measure(drawn[:, member].astype(np.float64))
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) > rounds / 10 else (None, None)
    return {"value": number(float(measure(np.ones((1, len(member))))[0])), "low": number(low), "high": number(high)}


def number(value: float | None) -> float | None:
    """Four digits; None for NaN, which JSON does not know."""
    return None if value is None or np.isnan(value) else round(value, 4)


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Area under the receiver operating characteristic; ties count half."""
    hits, misses = _by_score(positive, scores, weights)
    below = np.cumsum(misses, axis=1) - misses
    return _ratio((hits * (below + misses / 2.0)).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1))


def average_precision(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Area under precision and recall, as a sum of steps (no interpolation)."""
    hits, misses = (x[:, ::-1] for x in _by_score(positive, scores, weights))
    found = np.cumsum(hits, axis=1)
    precision = found / np.maximum(found + np.cumsum(misses, axis=1), 1e-12)
    return _ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def macro_auroc(truth: NDArray[Any], scores: NDArray[np.floating], weights: Floats | None = None) -> Floats:
    """Mean AUROC over those of the columns (N, K) that have both kinds of film."""
    if weights is None:
        weights = np.ones((1, len(truth)))
    each = np.stack([auroc(truth[:, k] > 0.5, scores[:, k], weights) for k in range(truth.shape[1])])
    return _ratio(np.nansum(each, axis=0), (~np.isnan(each)).sum(axis=0).astype(np.float64))


def _by_score(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, ascending: twice (R, G)."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    sorted_weights = weights[:, order]
    hits: Floats = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    misses: Floats = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    return hits, misses


def _share(hit: NDArray[np.bool_], weights: Floats) -> Floats:
    return _ratio((hit * weights).sum(axis=1), weights.sum(axis=1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
