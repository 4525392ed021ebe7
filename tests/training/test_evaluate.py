from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from schemas.card import Calibration
from schemas.findings import FINDINGS, LABELS
from training import evaluate
from training.evaluate import (
    COLUMNS,
    GROUPS,
    Readings,
    ReadingsInvalid,
    auroc,
    average_precision,
    compare,
    curves,
    interval,
    intervals,
    macro_auroc,
    measure,
    probabilities_of,
)
from training.whole_file import Unwritten

RNG = np.random.default_rng(0)
TRUTH = RNG.random(400) < 0.3
SCORES = RNG.random(400) * 0.7 + TRUTH * 0.3


def readings(films: int = 300, seed: int = 0, skill: float = 1.5, prevalence: float = 0.12) -> Readings:
    """Three films a patient; both models know something."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, len(FINDINGS))) < prevalence / 2).astype(np.uint8)
    any_finding = labels.max(axis=1, keepdims=True)
    truth = np.concatenate([any_finding, labels, 1 - any_finding], axis=1)
    return Readings(
        names=np.array([f"{i:08}_000.png" for i in range(films)]),
        patients=np.arange(films) // 3,
        ages=rng.integers(18, 80, films),
        sexes=rng.choice(["F", "M"], films),
        views=rng.choice(["PA", "AP"], films),
        truth=truth,
        logits=(skill * truth + rng.normal(-1.0, 1.0, truth.shape)).astype(np.float32),
    )


def only(these: Readings, rows: Any, **over: Any) -> Readings:
    return Readings(**{f.name: over.get(f.name, getattr(these, f.name)[rows]) for f in fields(these)})


CALIBRATION = {name: Calibration(scale=0.8, offset=-0.2) for name in COLUMNS}
THRESHOLDS = dict.fromkeys(COLUMNS, 0.4)
FILMS = readings()


@pytest.fixture(scope="module")
def measured() -> Mapping[str, Any]:
    return measure(FILMS, CALIBRATION, THRESHOLDS, balanced=dict.fromkeys(COLUMNS, 0.5), rounds=150)


# readings


def test_readings_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "run" / "readings-test.npz"
    FILMS.save(path)
    back = Readings.load(path)
    for field in fields(FILMS):
        assert np.array_equal(getattr(back, field.name), getattr(FILMS, field.name)), field.name
        assert getattr(back, field.name).dtype == getattr(FILMS, field.name).dtype
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "readings-test.npz"
    FILMS.save(path)
    before = path.read_bytes()

    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate.np, "savez_compressed", full)
    with pytest.raises(Unwritten, match="No space"):
        readings(seed=1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def _pickled(path: Path) -> None:
    np.savez(path, **{f.name: np.array([{}], dtype=object) for f in fields(Readings)})


def _other(path: Path) -> None:
    np.savez(path, weights=np.zeros(3))


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _cut(path: Path) -> None:
    FILMS.save(path)
    path.write_bytes(path.read_bytes()[:-700])


def _flipped(path: Path) -> None:
    FILMS.save(path)
    data = bytearray(path.read_bytes())
    for i in range(400, len(data) - 1500, 97):
        data[i] ^= 0xFF
    path.write_bytes(bytes(data))


def _misshapen(path: Path) -> None:
    columns = {f.name: getattr(FILMS, f.name) for f in fields(FILMS)}
    np.savez(path, **(columns | {"logits": FILMS.logits[:, :15]}))


@pytest.mark.parametrize(
    "spoil",
    [
        _pickled,
        _other,
        _array,
        _cut,
        _flipped,
        _misshapen,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 but no archive"),
        lambda path: path.write_text("films,truth\n"),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
)
def test_a_damaged_or_foreign_file_is_named(spoil: Any, tmp_path: Path) -> None:
    path = tmp_path / "readings-test.npz"
    spoil(path)
    with pytest.raises(ReadingsInvalid, match=r"readings-test\.npz"):
        Readings.load(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patients", np.arange(3), "patients"),
        ("ages", np.full(300, 50.0), "ages"),
        ("truth", np.full((300, 16), 2, np.uint8), "0 and 1"),
        ("logits", np.full((300, 16), np.nan, np.float32), "diverged"),
        ("logits", np.full((300, 16), np.inf, np.float32), "00000000_000"),
        ("names", np.full(300, "a.png"), "twice"),
    ],
)
def test_what_does_not_fit_together_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ReadingsInvalid, match=message):
        replace(FILMS, **{field: value})


def test_no_films_is_an_error() -> None:
    with pytest.raises(ReadingsInvalid, match="no films"):
        only(FILMS, slice(0, 0))


# figures


def test_values_are_scikit_learns(measured: Mapping[str, Any]) -> None:
    p = probabilities_of(FILMS, CALIBRATION)
    for k, name in ((0, "binary"), (1, LABELS[0]), (15, LABELS[14])):
        m = measured["binary"] if name == "binary" else measured["findings"][name]
        truth, flagged = FILMS.truth[:, k], p[:, k] >= 0.4
        wanted = {
            "auroc": roc_auc_score(truth, p[:, k]),
            "average_precision": average_precision_score(truth, p[:, k]),
            "accuracy": accuracy_score(truth, flagged),
            "balanced_accuracy": balanced_accuracy_score(truth, flagged),
            "sensitivity": recall_score(truth, flagged),
            "specificity": recall_score(truth, flagged, pos_label=0),
            "ppv": precision_score(truth, flagged),
            "npv": precision_score(truth, flagged, pos_label=0),
        }
        for key, value in wanted.items():
            assert m[key]["value"] == pytest.approx(value, abs=1e-4), (name, key)
            assert m[key]["low"] <= m[key]["value"] <= m[key]["high"]
        raw = 1.0 / (1.0 + np.exp(-FILMS.logits[:, k].astype(float)))
        assert m["brier"]["before"]["value"] == pytest.approx(brier_score_loss(truth, raw), abs=1e-4)
        assert m["brier"]["after"]["value"] == pytest.approx(brier_score_loss(truth, p[:, k]), abs=1e-4)
        assert m["majority"] == pytest.approx(max(truth.mean(), 1 - truth.mean()), abs=1e-4)
        assert sum(m["confusion"].values()) == m["films"] == 300
        assert m["confusion"]["tp"] + m["confusion"]["fn"] == m["positives"] == truth.sum()
        assert m["at_balanced_point"]["balanced_accuracy"]["value"] == pytest.approx(
            balanced_accuracy_score(truth, p[:, k] >= 0.5), abs=1e-4
        )


def test_macro_is_the_mean_over_findings(measured: Mapping[str, Any]) -> None:
    for key in ("auroc", "average_precision"):
        each = [measured["findings"][label][key]["value"] for label in FINDINGS]
        assert measured[f"macro_{key}"]["value"] == pytest.approx(np.mean(each), abs=2e-4)


def test_the_roc_curve_is_read_off_at_the_sensitivity(measured: Mapping[str, Any]) -> None:
    truth, p = FILMS.truth[:, 0], probabilities_of(FILMS, CALIBRATION)[:, 0]
    alarms, hits, cuts = roc_curve(truth, p, drop_intermediate=False)
    wanted = (1 - alarms)[hits >= 0.8 - 1e-12].max()
    assert measured["binary"]["specificity_at_sensitivity_80"]["value"] == pytest.approx(wanted, abs=1e-4)
    cut = cuts[np.argmax(hits >= 0.5 - 1e-12)]
    got = measured["binary"]["accuracy_at_recall_50"]
    assert got["accuracy"]["value"] == pytest.approx(accuracy_score(truth, p >= cut), abs=1e-4)
    assert got["gain"]["value"] == pytest.approx(got["accuracy"]["value"] - got["majority"]["value"], abs=2e-4)


def test_at_recall_one_half_accuracy_has_a_ceiling() -> None:
    """A perfect model on films of which two thirds are positive gains nothing: the figure alone would condemn it."""
    truth = np.zeros((90, 16), np.uint8)
    truth[:60, 0] = 1
    perfect = replace(readings(90), truth=truth, logits=(truth * 10.0 - 5.0).astype(np.float32))
    # Distinct scores, so that half of the positives can be taken.
    logits = perfect.logits + np.linspace(0, 0.1, 90, dtype=np.float32)[:, None]
    got = measure(replace(perfect, logits=logits), CALIBRATION, THRESHOLDS, prevalence={"binary": 0.4}, rounds=20)[
        "binary"
    ]["accuracy_at_recall_50"]
    assert got["accuracy"]["value"] == pytest.approx(1 - (60 / 90) / 2, abs=1e-4)
    assert got["gain"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert got["at_site"]["gain"]["value"] == pytest.approx(0.8 - 0.6, abs=1e-4)


def test_predictive_values_follow_the_sites_prevalence(measured: Mapping[str, Any]) -> None:
    rare = measure(FILMS, CALIBRATION, THRESHOLDS, prevalence={"binary": 0.01}, rounds=20)
    se, sp = (rare["binary"][key]["value"] for key in ("sensitivity", "specificity"))
    bayes = se * 0.01 / (se * 0.01 + (1 - sp) * 0.99)
    assert rare["binary"]["at_site"]["ppv"]["value"] == pytest.approx(bayes, abs=2e-4)
    assert rare["binary"]["at_site"]["prevalence"] == 0.01
    assert rare["binary"]["at_site"]["majority"] == 0.99
    assert rare["binary"]["ppv"] == pytest.approx(measured["binary"]["ppv"], abs=0.2)
    own = measured["binary"]
    assert own["at_site"]["ppv"]["value"] == own["ppv"]["value"]
    assert own["at_site"]["prevalence"] == own["prevalence"]


def test_groups(measured: Mapping[str, Any]) -> None:
    p = probabilities_of(FILMS, CALIBRATION)
    women = FILMS.sexes == "F"
    got = measured["subgroups"]["F"]
    assert got["films"] == women.sum()
    assert got["binary_auroc"]["value"] == pytest.approx(roc_auc_score(FILMS.truth[women, 0], p[women, 0]), abs=1e-4)
    assert got["sensitivity"]["value"] == pytest.approx(
        recall_score(FILMS.truth[women, 0], p[women, 0] >= 0.4), abs=1e-4
    )
    findings = [k for k in range(1, 15) if FILMS.truth[women, k].sum() >= 5]
    each = [roc_auc_score(FILMS.truth[women, k], p[women, k]) for k in findings]
    assert got["findings"] == len(findings)
    assert got["macro_auroc"]["value"] == pytest.approx(np.mean(each), abs=1e-4)
    ages = ("<18", "18-39", "40-59", "60-79", "80+")
    assert sum(measured["subgroups"][name]["films"] for name in ages) == 300
    assert measured["subgroups"]["<18"]["binary_auroc"]["value"] is None


def test_a_share_of_one_has_no_interval_of_one_to_one() -> None:
    films = replace(FILMS, logits=np.where(FILMS.truth > 0, np.float32(5), FILMS.logits))
    got = measure(films, CALIBRATION, THRESHOLDS, rounds=20)
    assert got["binary"]["sensitivity"] == {"value": 1.0, "low": None, "high": None}
    assert got["binary"]["specificity"]["low"] is not None


def test_ages_fall_into_one_band_and_unknown_ones_into_none() -> None:
    films = only(FILMS, slice(0, 8), ages=np.array([-1, 0, 17, 18, 39, 60, 79, 80]))
    bands = {name: GROUPS[name](films).tolist() for name in ("<18", "18-39", "40-59", "60-79", "80+")}
    assert [sum(row) for row in zip(*bands.values(), strict=True)] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert bands["<18"] == [False, True, True, *[False] * 5]


def test_agreement(measured: Mapping[str, Any]) -> None:
    p = probabilities_of(FILMS, CALIBRATION)
    named = (p[:, 1:15] >= 0.4).any(axis=1) | (p[:, 15] < 0.4)
    flagged = p[:, 0] >= 0.4
    got = measured["agreement"]
    assert got["kappa"]["value"] == pytest.approx(cohen_kappa_score(flagged, named), abs=1e-4)
    assert got["share"]["value"] == pytest.approx((flagged == named).mean(), abs=1e-4)
    assert (got["both"], got["binary_only"]) == ((flagged & named).sum(), (flagged & ~named).sum())
    assert (got["multilabel_only"], got["neither"]) == ((~flagged & named).sum(), (~flagged & ~named).sum())
    ranks = [np.argsort(np.argsort(x)) for x in (p[:, 0], 1 - p[:, 15])]
    assert got["rank_correlation"]["value"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-4)


def test_rank_correlation_is_that_of_the_drawn_films() -> None:
    """Weights are copies: with ties, and with films left out."""
    x, y = RNG.integers(0, 6, 40).astype(float), RNG.integers(0, 6, 40).astype(float)
    weights = RNG.multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    flags = np.zeros(40, bool)
    got = evaluate._agreement(flags, flags, x, y, weights)["rank_correlation"]
    for w, value in zip(weights.astype(int), got, strict=True):
        copies = np.repeat(np.arange(40), w)
        ranks = [np.array([(v < z).sum() + ((v == z).sum() - 1) / 2 for z in v]) for v in (x[copies], y[copies])]
        assert value == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_one_kind_of_film_gives_no_nan() -> None:
    """No finding at all, one patient, everything known alike."""
    truth = np.zeros((6, 16), np.uint8)
    truth[:, 15] = 1
    films = only(FILMS, slice(0, 6), truth=truth, patients=np.ones(6, int))
    got = measure(films, CALIBRATION, THRESHOLDS, rounds=20)
    json.dumps(got, allow_nan=False)
    assert got["macro_auroc"] == {"value": None, "low": None, "high": None}
    assert got["binary"]["sensitivity"]["value"] is None
    assert got["binary"]["accuracy_at_recall_50"]["gain"]["value"] is None
    assert got["binary"]["specificity"]["value"] is not None
    drawn = curves(films, CALIBRATION)
    assert len(drawn["binary"].hits) == 0
    assert drawn["binary"].after.films.sum() == 6


def test_keys_that_cards_and_pages_read(measured: Mapping[str, Any]) -> None:
    json.dumps(measured, allow_nan=False)
    assert list(measured["findings"]) == list(LABELS)
    assert measured["films"] == 300
    assert measured["patients"] == 100
    assert set(measured["macro_auroc"]) == {"value", "low", "high"}
    for m in (measured["binary"], *measured["findings"].values()):
        assert {"films", "positives", "auroc", "average_precision", "sensitivity", "specificity"} <= set(m)


# intervals


def test_patients_are_drawn_whole() -> None:
    """The same films ten times tell no more than once: the interval must not shrink."""

    def width(truth: np.ndarray, scores: np.ndarray, patients: list[int]) -> float:
        figure = interval(lambda w: auroc(truth, scores, w), patients, rounds=300)
        return figure["high"] - figure["low"]

    alone = width(TRUTH[:60], SCORES[:60], [*range(60)])
    copies = width(np.tile(TRUTH[:60], 10), np.tile(SCORES[:60], 10), [*range(60)] * 10)
    assert copies == pytest.approx(alone, abs=1e-9)


def _mean(weights: np.ndarray) -> np.ndarray:
    return (weights * SCORES).sum(axis=1) / weights.sum(axis=1)


def test_same_seed_same_interval_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = interval(_mean, range(400), rounds=50)
    monkeypatch.setattr(evaluate, "_CELLS", 400 * 7)
    assert interval(_mean, range(400), rounds=50) == whole
    assert intervals(lambda w: {"a": _mean(w), "b": -_mean(w)}, range(400), rounds=50)["a"] == whole
    assert interval(_mean, range(400), rounds=50, seed=1) != whole


def test_an_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    """Mean of uniform draws, 0.5: a percentile interval that is too narrow or too wide shows here."""
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        values = rng.random(60)
        figure = interval(lambda w, v=values: (w @ v) / w.sum(axis=1), range(60), rounds=200, seed=trial)
        held += figure["low"] <= 0.5 <= figure["high"]
    assert 176 <= held <= 198


def test_weighted_measures_agree_with_scikit_learn() -> None:
    """Ties, and films that a round leaves out or counts several times."""
    scores = np.round(SCORES, 1)
    weights = RNG.multinomial(400, np.full(400, 1 / 400), size=20).astype(float)
    ours = auroc(TRUTH, scores, weights), average_precision(TRUTH, scores, weights)
    for one, got in zip((roc_auc_score, average_precision_score), ours, strict=True):
        wanted = [one(TRUTH, scores, sample_weight=w) for w in weights]
        assert np.allclose(got, wanted, atol=1e-12)


def test_macro_leaves_out_labels_without_both_kinds() -> None:
    truth = np.stack([TRUTH, np.zeros(400), np.ones(400)], axis=1)
    scores = np.stack([SCORES, SCORES, SCORES], axis=1)
    assert macro_auroc(truth, scores)[0] == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert np.isnan(macro_auroc(truth[:, 1:], scores[:, 1:])[0])


# two models


def test_a_better_model_is_better_and_pairing_narrows() -> None:
    rng = np.random.default_rng(3)
    worse = replace(FILMS, logits=(FILMS.logits + rng.normal(0, 1.0, FILMS.logits.shape)).astype(np.float32))
    got = compare(FILMS, worse, rounds=200)
    json.dumps(got, allow_nan=False)
    for key in ("binary_auroc", "macro_auroc"):
        mine, other, difference = (got[key][whose] for whose in ("mine", "other", "difference"))
        assert difference["value"] == pytest.approx(mine["value"] - other["value"], abs=2e-4)
        assert 0 < difference["low"] < difference["high"]
        unpaired = np.hypot(mine["high"] - mine["low"], other["high"] - other["low"])
        assert difference["high"] - difference["low"] < unpaired
    turned = compare(worse, FILMS, rounds=200)
    assert turned["macro_auroc"]["difference"]["value"] == -got["macro_auroc"]["difference"]["value"]


def test_the_same_model_in_another_order_and_scale_is_no_different() -> None:
    rows = np.random.default_rng(1).permutation(300)
    other = only(FILMS, rows, logits=3.0 * FILMS.logits[rows] - 1.0)
    difference = compare(FILMS, other, rounds=50)["binary_auroc"]["difference"]
    assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_other_films_or_another_truth_cannot_be_compared() -> None:
    with pytest.raises(ReadingsInvalid, match="00000299_000"):
        compare(FILMS, only(FILMS, slice(0, 299)))
    truth = FILMS.truth.copy()
    truth[7, 3] ^= 1
    with pytest.raises(ReadingsInvalid, match="00000007_000"):
        compare(FILMS, replace(FILMS, truth=truth))


def test_curves_end_where_they_must() -> None:
    drawn = curves(readings(3000), CALIBRATION)["binary"]
    assert len(drawn.hits) <= evaluate.POINTS
    assert (drawn.alarms[0], drawn.hits[0], drawn.alarms[-1], drawn.hits[-1]) == (0, 0, 1, 1)
    assert (np.diff(drawn.recall) >= 0).all()
    assert np.trapezoid(drawn.hits, drawn.alarms) == pytest.approx(
        roc_auc_score(readings(3000).truth[:, 0], readings(3000).logits[:, 0]), abs=2e-3
    )
