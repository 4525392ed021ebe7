"""How good the models are, for whom, and how sure we are: figures on one side of the split.

Intervals are the 2.5 and 97.5 percentiles of a patient bootstrap (Efron 1979; films of one patient are drawn together).
Every measure takes weights (R, N), how often each of N films counts in each of R rounds, and answers R values at once:
a thousand rounds for sixteen outputs are then seconds, not minutes. NaN where a round cannot be measured. What needs no
rounds is scikit-learn's.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from schemas.card import Calibration
from schemas.errors import HilumError
from schemas.findings import FINDINGS, LABELS, Label
from training.calibrate import ENOUGH, Reliability, calibration_error, probability, reliability
from training.whole_file import replacing

Floats: TypeAlias = NDArray[np.float64]
Measure: TypeAlias = Callable[[Floats], Floats]
Figure: TypeAlias = dict[str, float | None]  # value, low, high; None where it cannot be told
Key = TypeVar("Key", bound=Hashable)

COLUMNS: Final[tuple[str, ...]] = ("binary", *LABELS)
SENSITIVITY: Final = 0.80  # at which the specificity is read off the ROC curve
RECALL: Final = 0.50  # at which the reference project tells its accuracy
POINTS: Final = 250  # of a drawn curve

_FINDINGS: Final = list(range(1, 1 + len(FINDINGS)))  # columns
_NO_FINDING: Final = COLUMNS.index(Label.NO_FINDING)
_CELLS: Final = 1 << 22  # rounds x films that are weighed at a time: 32 MiB an array
_FIELDS: Final = {
    "names": "U",
    "patients": "iu",
    "ages": "iu",
    "sexes": "U",
    "views": "U",
    "truth": "u",
    "logits": "f",
}

# Of a cut file, a flipped bit, a foreign array, an encrypted or oddly packed archive.
_DAMAGE: Final = (
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


class ReadingsInvalid(HilumError):
    """Readings that are damaged, are something else, or do not fit together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """What both models said of the films of one side of the split, and what is true of them.

    Parameters
    ----------
    names:
        str (N,), N >= 1, each once.
    patients:
        int (N,): whose film it is.
    ages:
        int (N,): years; -1 where unknown.
    sexes, views:
        str (N,): "F", "M"; "PA", "AP"; "" where unknown.
    truth:
        uint8 (N, 16) of zeros and ones, `COLUMNS` in order.
    logits:
        float32 (N, 16), finite, before calibration, `COLUMNS` in order.

    Raises
    ------
    ReadingsInvalid
        A column has another length or kind, a film stands there twice, or a logit is not finite.
    """

    names: NDArray[np.str_]
    patients: NDArray[np.int64]
    ages: NDArray[np.int64]
    sexes: NDArray[np.str_]
    views: NDArray[np.str_]
    truth: NDArray[np.uint8]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        films = len(self.names)
        if not films:
            raise ReadingsInvalid("no films: nothing can be measured; is this side of the split empty?")
        for name, kinds in _FIELDS.items():
            column = getattr(self, name)
            shape = (films, len(COLUMNS)) if name in {"truth", "logits"} else (films,)
            if column.shape != shape or column.dtype.kind not in kinds:
                raise ReadingsInvalid(f"{name}: {column.dtype} {column.shape} where {kinds} {shape} is needed")
        if (self.truth > 1).any():
            raise ReadingsInvalid("truth: holds other values than 0 and 1")
        if not (finite := np.isfinite(self.logits)).all():
            film, column = np.argwhere(~finite)[0]
            raise ReadingsInvalid(
                f"logits: {self.logits[film, column]} for {COLUMNS[column]} of {self.names[film]!s}: the model has "
                "diverged; train again with a lower learning rate"
            )
        if len(set(self.names.tolist())) < films:
            raise ReadingsInvalid("names: a film stands there twice")

    def save(self, path: Path) -> None:
        """Write all of it, or nothing (.npz)."""
        with replacing(path) as file:
            np.savez_compressed(file, **{field: getattr(self, field) for field in _FIELDS})

    @classmethod
    def load(cls, path: Path) -> Readings:
        """What `save` wrote.

        Raises
        ------
        ReadingsInvalid
            The file is missing, damaged, or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in _FIELDS}
        except OSError as error:
            raise ReadingsInvalid(f"{path}: cannot be read ({error.strerror or error}); evaluate again") from error
        except (*_DAMAGE, KeyError) as error:
            raise ReadingsInvalid(f"{path}: damaged, or no readings ({error}); remove it and evaluate again") from error
        try:
            return cls(**columns)
        except (ReadingsInvalid, TypeError, AttributeError) as error:
            raise ReadingsInvalid(f"{path}: {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """One output's curves, thinned to be drawn; ROC and precision-recall are empty where a kind of film is missing."""

    alarms: Floats  # (P,) 1 - specificity, rising
    hits: Floats  # (P,) sensitivity
    recall: Floats  # (Q,) rising
    precision: Floats  # (Q,)
    before: Reliability  # of the bare logistic of the logit
    after: Reliability  # calibrated


def probabilities_of(readings: Readings, calibration: Mapping[str, Calibration]) -> Floats:
    """(N, 16) calibrated probabilities, `COLUMNS` in order."""
    return np.stack([probability(readings.logits[:, k], calibration[c]) for k, c in enumerate(COLUMNS)], axis=1)


def measure(
    readings: Readings,
    calibration: Mapping[str, Calibration],
    thresholds: Mapping[str, float],
    *,
    balanced: Mapping[str, float] | None = None,
    prevalence: Mapping[str, float] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of one side of the split, for the card: JSON without NaN; a Figure is {value, low, high}.

    Low and high are None where they cannot be told, as for a share of 0 or 1 that every round repeats.

    Parameters
    ----------
    calibration, thresholds:
        Of "binary" and each of `LABELS`, chosen on other films than these.
    balanced:
        Thresholds chosen on validation films for balanced accuracy (`calibrate.balanced_point`); what they reach here
        is told under "at_balanced_point".
    prevalence:
        At the site, per output, in (0, 1); outputs without one take these films' own.

    Returns
    -------
    films, patients, rounds, seed:
        How many, and how the intervals were drawn.
    macro_auroc, macro_average_precision:
        Mean over those of the 14 findings that can be measured, "macro_findings" many; "macro_prevalence" is the
        latter's baseline.
    binary, findings[label]:
        films, positives, prevalence (share of positives: average precision's baseline), threshold, confusion {tp, fp,
        fn, tn}; Figures at the threshold: accuracy (beside "majority", the share of the larger class),
        balanced_accuracy, sensitivity, specificity, ppv, npv; at_site {prevalence, ppv, npv, accuracy, majority}: the
        same sensitivity and specificity where findings occur as often as there; auroc, average_precision; brier and
        calibration_error, each {before, after} calibration. The calibration error has no interval: drawing films again
        can only make it larger.
    binary.specificity_at_sensitivity_80:
        The best specificity of all thresholds that find at least 80 % of the positives of these films. Read off the
        test ROC curve, in every round anew: what the ranking allows, not what a threshold chosen beforehand reached.
    binary.accuracy_at_recall_50:
        {accuracy, majority, gain, at_site}: accuracy at the highest threshold that finds at least half of the
        positives, the share of the larger class, and their difference; read off in the same way. At a recall of one
        half, accuracy cannot be more than 1 - prevalence / 2, so films of which two thirds or more are positive leave
        no gain to be had; at_site tells the same point at the site's prevalence.
    subgroups:
        Of each group of `GROUPS`: films, binary_auroc, macro_auroc over as many findings as "findings" says,
        sensitivity and specificity of the binary model. Groups differ in which findings can be measured in them:
        compare macro AUROC across groups with care. None where fewer than 5 films of a kind are there.
    agreement:
        Of the binary model (at or over its threshold) with the multilabel one (any finding at or over its threshold,
        or "No Finding" under its own): share, Cohen's kappa, the four counts, and Spearman's correlation of p(binary)
        with 1 - p(No Finding).
    """
    truth = readings.truth > 0
    p = probabilities_of(readings, calibration)
    raw = np.stack([probability(readings.logits[:, k], Calibration()) for k in range(len(COLUMNS))], axis=1)
    above = p >= np.array([thresholds[name] for name in COLUMNS])
    site = {name: (prevalence or {}).get(name, float(truth[:, k].mean())) for k, name in enumerate(COLUMNS)}
    members = {name: belongs(readings) for name, belongs in GROUPS.items()}
    flagged = above[:, 0], above[:, _FINDINGS].any(axis=1) | ~above[:, _NO_FINDING]
    scores = p[:, 0], 1.0 - p[:, _NO_FINDING]

    def measures(w: Floats) -> dict[tuple[str, ...], Floats]:
        values: dict[tuple[str, ...], Floats] = {}
        for k, name in enumerate(COLUMNS):
            each = _at(truth[:, k], above[:, k], site[name], w)
            hits, misses = _by_score(truth[:, k], p[:, k], w)
            each["auroc",], each["average_precision",] = _area(hits, misses), _steps(hits, misses)
            for when, q in (("before", raw), ("after", p)):
                each["brier", when] = _ratio(w @ (q[:, k] - truth[:, k]) ** 2, w.sum(axis=1))
            if balanced is not None:
                at = _at(truth[:, k], p[:, k] >= balanced[name], site[name], w)
                each |= {("at_balanced_point", *key): at[key] for key in _AT_BALANCED_POINT}
            if name == "binary":
                each |= _read_off(hits, misses, site[name])
            values |= {(name, *key): value for key, value in each.items()}
        for key in ("auroc", "average_precision"):
            values[f"macro_{key}",] = _mean([values[label, key] for label in FINDINGS])
        for group, member in members.items():
            each = _of_group(truth[member], p[member], above[member, 0], w[:, member])
            values |= {("subgroups", group, *key): value for key, value in each.items()}
        return values | {("agreement", key): value for key, value in _agreement(*flagged, *scores, w).items()}

    figures = intervals(measures, readings.patients.tolist(), rounds=rounds, seed=seed)
    told = _nested({key: _unbounded(figure) for key, figure in figures.items()})
    for k, name in enumerate(COLUMNS):
        told[name] |= _counts(truth[:, k], above[:, k], thresholds[name])
        told[name]["at_site"] |= _at_most(site[name])
        told[name]["calibration_error"] = {
            when: number(calibration_error(reliability(q[:, k], truth[:, k])))
            for when, q in (("before", raw), ("after", p))
        }
        if balanced is not None:
            told[name]["at_balanced_point"]["threshold"] = balanced[name]
    told["binary"]["accuracy_at_recall_50"]["at_site"] |= _at_most(site["binary"])
    for group, member in members.items():
        told["subgroups"][group] |= {"films": int(member.sum()), "findings": len(_measurable(truth[member]))}
    measured = [k for k in _FINDINGS if 0 < truth[:, k].sum() < len(truth)]
    (neither, multilabel_only), (binary_only, both) = confusion_matrix(*flagged, labels=[False, True]).tolist()
    told["agreement"] |= {
        "both": both,
        "binary_only": binary_only,
        "multilabel_only": multilabel_only,
        "neither": neither,
    }
    return {
        "films": len(readings.names),
        "patients": len(np.unique(readings.patients)),
        "rounds": rounds,
        "seed": seed,
        "macro_auroc": told["macro_auroc"],
        "macro_average_precision": told["macro_average_precision"],
        "macro_prevalence": number(float(truth[:, measured].mean())) if measured else None,
        "macro_findings": len(measured),
        "binary": told["binary"],
        "findings": {str(label): told[label] for label in LABELS},
        "subgroups": told["subgroups"],
        "agreement": told["agreement"],
    }


def curves(readings: Readings, calibration: Mapping[str, Calibration]) -> dict[str, Curves]:
    """Of "binary" and each of `LABELS`, what a report draws; too long for a card."""
    p = probabilities_of(readings, calibration)
    drawn = {}
    for k, name in enumerate(COLUMNS):
        truth = readings.truth[:, k]
        alarms = hits = recall = precision = np.empty(0)
        if 0 < truth.sum() < len(truth):
            alarms, hits, _ = roc_curve(truth, p[:, k])
            precision, recall, _ = precision_recall_curve(truth, p[:, k], drop_intermediate=True)
        drawn[name] = Curves(
            alarms=_thinned(alarms),
            hits=_thinned(hits),
            recall=_thinned(recall[::-1]),
            precision=_thinned(precision[::-1]),
            before=reliability(probability(readings.logits[:, k], Calibration()), truth),
            after=reliability(p[:, k], truth),
        )
    return drawn


def compare(mine: Readings, other: Readings, *, rounds: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Two models on the same films: paired patient bootstrap of the difference, mine minus other.

    Calibration plays no part: ranking alone is compared.

    Returns
    -------
    films, patients, rounds, seed, and for each of "binary_auroc" and "macro_auroc" {mine, other, difference}, for each
    label of "findings" the same: Figures. A difference whose low is above 0 is one that other patients of the same
    kind would most likely show too.

    Raises
    ------
    ReadingsInvalid
        Not the same films, or another truth: then a difference says nothing of the models.
    """
    row_of = {name: i for i, name in enumerate(other.names.tolist())}
    names = mine.names.tolist()
    if strangers := sorted(set(names) ^ set(row_of)):
        raise ReadingsInvalid(
            f"{len(strangers)} film(s) were read by one of the models only, the first: {strangers[0]}; read the same "
            "side of the split with both"
        )
    rows = np.array([row_of[name] for name in names])
    if (differs := (mine.truth != other.truth[rows]).any(axis=1) | (mine.patients != other.patients[rows])).any():
        raise ReadingsInvalid(
            f"{names[int(np.argmax(differs))]}: labels or patient differ between the two models' readings; read both "
            "with the same table"
        )
    truth = mine.truth > 0
    logits = {"mine": mine.logits, "other": other.logits[rows]}

    def measures(w: Floats) -> dict[tuple[str, ...], Floats]:
        values: dict[tuple[str, ...], Floats] = {}
        for whose, z in logits.items():
            each = [auroc(truth[:, k], z[:, k], w) for k in range(len(COLUMNS))]
            values["binary_auroc", whose] = each[0]
            values["macro_auroc", whose] = _mean([each[k] for k in _FINDINGS])
            values |= {("findings", str(label), whose): each[k] for k, label in enumerate(LABELS, start=1)}
        pairs = [key[:-1] for key in values if key[-1] == "mine"]
        return values | {(*pair, "difference"): values[*pair, "mine"] - values[*pair, "other"] for pair in pairs}

    told = _nested(intervals(measures, mine.patients.tolist(), rounds=rounds, seed=seed))
    return {"films": len(names), "patients": len(np.unique(mine.patients)), "rounds": rounds, "seed": seed} | told


def interval(measure: Measure, patients: Sequence[int], *, rounds: int = 1000, seed: int = 0) -> Figure:
    """The measure with every film once, and its 2.5 and 97.5 percentiles when as many patients are drawn again.

    Low and high are None when nine tenths of the rounds cannot be measured.
    """
    return intervals(lambda w: {"": measure(w)}, patients, rounds=rounds, seed=seed)[""]


def intervals(
    measures: Callable[[Floats], Mapping[Key, Floats]], patients: Sequence[int], *, rounds: int = 1000, seed: int = 0
) -> dict[Key, Figure]:
    """`interval` of several measures on the same draws: what is alike between them is worked out once."""
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    n = int(member.max()) + 1
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // len(member))
    parts = []
    for start in range(0, rounds, step):
        drawn = random.multinomial(n, np.full(n, 1.0 / n), size=min(step, rounds - start))
        parts.append(measures(drawn[:, member].astype(np.float64)))
    told = {}
    for key, value in measures(np.ones((1, len(member)))).items():
        values = np.concatenate([part[key] for part in parts])
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) > rounds / 10 else (None, None)
        told[key] = {"value": number(float(value[0])), "low": number(low), "high": number(high)}
    return told


def number(value: float | None) -> float | None:
    """Four digits; None for NaN, which JSON does not know."""
    return None if value is None or np.isnan(value) else round(value, 4)


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Area under the receiver operating characteristic; ties count half."""
    return _area(*_by_score(positive, scores, weights))


def average_precision(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Area under precision and recall, as a sum of steps (no interpolation)."""
    return _steps(*_by_score(positive, scores, weights))


def macro_auroc(truth: NDArray[Any], scores: NDArray[np.floating], weights: Floats | None = None) -> Floats:
    """Mean AUROC over those of the columns (N, K) that have both kinds of film."""
    if weights is None:
        weights = np.ones((1, len(truth)))
    return _mean([auroc(truth[:, k] > 0.5, scores[:, k], weights) for k in range(truth.shape[1])])


def _years(first: int, last: int) -> Callable[[Readings], NDArray[np.bool_]]:
    return lambda readings: (readings.ages >= first) & (readings.ages <= last)


GROUPS: Final[Mapping[str, Callable[[Readings], NDArray[np.bool_]]]] = {
    "F": lambda readings: readings.sexes == "F",
    "M": lambda readings: readings.sexes == "M",
    "<18": _years(0, 17),
    "18-39": _years(18, 39),
    "40-59": _years(40, 59),
    "60-79": _years(60, 79),
    "80+": _years(80, 1 << 30),
    "PA": lambda readings: readings.views == "PA",
    "AP": lambda readings: readings.views == "AP",
}
_AT_BALANCED_POINT: Final = (("balanced_accuracy",), ("sensitivity",), ("specificity",), ("accuracy",))


def _by_score(positive: NDArray[np.bool_], scores: NDArray[np.floating], weights: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, ascending: twice (R, G)."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    sorted_weights = weights[:, order]
    hits: Floats = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    misses: Floats = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    return hits, misses


def _area(hits: Floats, misses: Floats) -> Floats:
    below = np.cumsum(misses, axis=1) - misses
    return _ratio((hits * (below + misses / 2.0)).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1))


def _steps(hits: Floats, misses: Floats) -> Floats:
    hits, misses = hits[:, ::-1], misses[:, ::-1]
    found = np.cumsum(hits, axis=1)
    precision = found / np.maximum(found + np.cumsum(misses, axis=1), 1e-12)
    return _ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def _read_off(hits: Floats, misses: Floats, site: float) -> dict[tuple[str, ...], Floats]:
    """What the ROC curve says at `SENSITIVITY` and at `RECALL`; in and out as `_by_score` gives them."""
    found, alarms = np.cumsum(hits[:, ::-1], axis=1), np.cumsum(misses[:, ::-1], axis=1)
    positives, negatives = found[:, -1], alarms[:, -1]

    def at(share: float) -> tuple[Floats, Floats]:
        first = np.argmax(found >= share * positives[:, None] - 1e-9, axis=1)[:, None]
        return (
            _ratio(np.take_along_axis(found, first, axis=1)[:, 0], positives),
            1.0 - _ratio(np.take_along_axis(alarms, first, axis=1)[:, 0], negatives),
        )

    sensitivity, specificity = at(RECALL)
    share = _ratio(positives, positives + negatives)
    accuracy = share * sensitivity + (1.0 - share) * specificity
    majority = np.where(np.isnan(accuracy), np.nan, np.maximum(share, 1.0 - share))
    at_site = site * sensitivity + (1.0 - site) * specificity
    return {
        ("specificity_at_sensitivity_80",): at(SENSITIVITY)[1],
        ("accuracy_at_recall_50", "accuracy"): accuracy,
        ("accuracy_at_recall_50", "majority"): majority,
        ("accuracy_at_recall_50", "gain"): accuracy - majority,
        ("accuracy_at_recall_50", "at_site", "accuracy"): at_site,
        ("accuracy_at_recall_50", "at_site", "gain"): at_site - max(site, 1.0 - site),
    }


def _at(
    positive: NDArray[np.bool_], above: NDArray[np.bool_], site: float, weights: Floats
) -> dict[tuple[str, ...], Floats]:
    """Everything that a threshold decides."""
    kinds = np.stack([positive & above, ~positive & above, positive & ~above, ~positive & ~above], axis=1)
    tp, fp, fn, tn = (weights @ kinds.astype(np.float64)).T
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        ("accuracy",): _ratio(tp + tn, tp + fp + fn + tn),
        ("balanced_accuracy",): (sensitivity + specificity) / 2.0,
        ("sensitivity",): sensitivity,
        ("specificity",): specificity,
        ("ppv",): _ratio(tp, tp + fp),
        ("npv",): _ratio(tn, tn + fn),
        ("at_site", "accuracy"): site * sensitivity + (1.0 - site) * specificity,
        ("at_site", "ppv"): _ratio(site * sensitivity, site * sensitivity + (1.0 - site) * (1.0 - specificity)),
        ("at_site", "npv"): _ratio((1.0 - site) * specificity, (1.0 - site) * specificity + site * (1.0 - sensitivity)),
    }


def _of_group(
    truth: NDArray[np.bool_], p: Floats, flagged: NDArray[np.bool_], weights: Floats
) -> dict[tuple[str, ...], Floats]:
    """The figures of some of the films: (n, 16), (n, 16), (n,), (R, n)."""
    nothing = np.full(len(weights), np.nan)
    positive = truth[:, 0]
    at = _at(positive, flagged, 0.5, weights)
    seen, unseen = positive.sum() >= ENOUGH, (~positive).sum() >= ENOUGH
    findings = [auroc(truth[:, k], p[:, k], weights) for k in _measurable(truth)]
    return {
        ("binary_auroc",): auroc(positive, p[:, 0], weights) if seen and unseen else nothing,
        ("macro_auroc",): _mean(findings) if findings else nothing,
        ("sensitivity",): at["sensitivity",] if seen else nothing,
        ("specificity",): at["specificity",] if unseen else nothing,
    }


def _measurable(truth: NDArray[np.bool_]) -> list[int]:
    """The findings of which there are enough films of both kinds."""
    return [k for k in _FINDINGS if ENOUGH <= truth[:, k].sum() <= len(truth) - ENOUGH]


def _agreement(
    flagged: NDArray[np.bool_], named: NDArray[np.bool_], p: Floats, q: Floats, weights: Floats
) -> dict[str, Floats]:
    total = weights.sum(axis=1)
    share = (weights @ (flagged == named)) / total
    a, b = (weights @ flagged) / total, (weights @ named) / total
    chance = a * b + (1.0 - a) * (1.0 - b)
    x, y = _ranks(p, weights), _ranks(q, weights)
    x -= ((weights * x).sum(axis=1) / total)[:, None]
    y -= ((weights * y).sum(axis=1) / total)[:, None]
    spread = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    return {
        "share": share,
        "kappa": _ratio(share - chance, 1.0 - chance),
        "rank_correlation": _ratio((weights * x * y).sum(axis=1), spread),
    }


def _ranks(scores: NDArray[np.floating], weights: Floats) -> Floats:
    """(R, N): the middle of the ranks that a film's score takes in each round; those of equal score share one."""
    _, group, films = np.unique(scores, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    totals = np.add.reduceat(weights[:, order], np.cumsum(films) - films, axis=1)
    middles: Floats = (np.cumsum(totals, axis=1) - totals / 2.0)[:, group]
    return middles


def _counts(truth: NDArray[np.bool_], above: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    (tn, fp), (fn, tp) = confusion_matrix(truth, above, labels=[False, True]).tolist()
    share = float(truth.mean())
    return {
        "films": len(truth),
        "positives": int(truth.sum()),
        "prevalence": number(share),
        "majority": number(max(share, 1.0 - share)),
        "threshold": float(threshold),
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def _at_most(site: float) -> dict[str, float | None]:
    return {"prevalence": number(site), "majority": number(max(site, 1.0 - site))}


def _unbounded(figure: Figure) -> Figure:
    """Without an interval where every round repeats a share of 0 or 1: drawing such films again tells nothing."""
    stuck = figure["value"] == figure["low"] == figure["high"] and figure["value"] in {0.0, 1.0}
    return figure | {"low": None, "high": None} if stuck else figure


def _nested(flat: Mapping[tuple[str, ...], Figure]) -> dict[str, Any]:
    """("a", "b") → Figure as {"a": {"b": Figure}}."""
    root: dict[str, Any] = {}
    for (*path, last), value in flat.items():
        node = root
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return root


def _thinned(points: NDArray[np.floating]) -> Floats:
    kept = np.linspace(0, len(points) - 1, min(POINTS, len(points))).round().astype(np.int64)
    thinned: Floats = np.asarray(points, np.float64)[kept]
    return thinned


def _mean(each: Sequence[Floats]) -> Floats:
    values = np.stack(each)
    return _ratio(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0).astype(np.float64))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
