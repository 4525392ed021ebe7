"""How good a model is, with how sure we are: figures on one side of the split, 95 % intervals by patient bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Truth: TypeAlias = NDArray[np.bool_]
Figure: TypeAlias = dict[str, float | None]  # value, low, high; None where it cannot be told


def macro_auroc(
    truth: NDArray[Any], scores: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> float:
    """Mean AUROC over the columns that have both kinds of film; NaN when none has."""
    values = [_auroc(truth[:, k] > 0.5, scores[:, k], weights) for k in range(truth.shape[1])]
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def figures(
    truth: NDArray[np.floating],
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
    measures: dict[str, Callable[[NDArray[np.floating]], float]] = {
        "auroc": lambda w: _auroc(positive, probabilities, w),
        "average_precision": lambda w: _average_precision(positive, probabilities, w),
        "sensitivity": lambda w: _share(above, w * positive),
        "specificity": lambda w: _share(~above, w * ~positive),
    }
    return {"films": len(truth), "positives": int(positive.sum())} | {
        name: interval(measure, patients, rounds=rounds, seed=seed) for name, measure in measures.items()
    }


def interval(
    measure: Callable[[NDArray[np.floating]], float], patients: Sequence[int], *, rounds: int = 1000, seed: int = 0
) -> Figure:
    """The measure under weight 1 for every film, and its 2.5 and 97.5 percentiles when patients are drawn again.

    `measure` takes one weight a film (how often its patient was drawn) and may answer NaN, which is left out; low and
    high are None when nine tenths of the rounds cannot be measured.
    """
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    n = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=rounds).astype(np.float64)
    draws = np.array([measure(times[member]) for times in drawn])
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) > rounds / 10 else (None, None)
    return {"value": _number(measure(np.ones(len(member)))), "low": _number(low), "high": _number(high)}


def _number(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or np.isnan(value) else round(value, 4)


def _auroc(positive: Truth, scores: NDArray[np.floating], weights: NDArray[np.floating] | None) -> float:
    kept = np.ones(len(positive), bool) if weights is None else weights > 0
    if positive[kept].all() or not positive[kept].any():
        return float("nan")
    return float(roc_auc_score(positive[kept], scores[kept], sample_weight=None if weights is None else weights[kept]))


def _average_precision(positive: Truth, scores: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    if not (weights * positive).any():
        return float("nan")
    return float(average_precision_score(positive, scores, sample_weight=weights))


def _share(hit: Truth, weights: NDArray[np.floating]) -> float:
    total = float(weights.sum())
    return float((hit * weights).sum()) / total if total else float("nan")
