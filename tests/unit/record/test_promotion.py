"""The promotion gate, condition by condition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.card import ModelCard, model_id, read_card
from schemas.findings import FINDINGS
from schemas.registry import PARITY, Check
from tests.unit.infer.bundles import OUTPUTS, card
from worker.record.promotion import gate

PROOF = Check(name="openvino (CPU f32)", passed=True, words="golden probabilities within 0.0001")
STARTER = Path(__file__).parents[3] / "worker" / "models" / "starter"


def auroc(value: float, half: float = 0.05) -> dict[str, Any]:
    return {"auroc": {"value": value, "low": value - half, "high": value + half}}


def model(name: str, value: float = 0.8, **fields: Any) -> ModelCard:
    test = {
        "films": 700,
        "binary": auroc(value),
        "macro_auroc": auroc(value)["auroc"],
        "findings": {label: auroc(value, 0.1) for label in OUTPUTS[1:]},
    }
    points = {output: 0.5 + len(name) / 100 for output in OUTPUTS}
    return card(name=name, **{"files": {"f": name}, "thresholds": points, "metrics": {"test": test}, **fields})


LIVE = model("live")


def failed(candidate: ModelCard, live: ModelCard = LIVE, **more: Any) -> dict[str, str]:
    checks = gate(candidate, live, **{"proofs": [PROOF], "who": "anna", **more})
    return {check.name: check.words for check in checks if not check.passed}


def paired(lead: float, half: float, **findings: tuple[float, float]) -> dict[str, Any]:
    """A comparison film by film with the live model."""

    def compared(lead: float, half: float) -> dict[str, Any]:
        difference = {"value": lead, "low": lead - half, "high": lead + half}
        return {"mine": auroc(0.8 + lead)["auroc"], "other": auroc(0.8)["auroc"], "difference": difference}

    return {
        "against": {
            "model_id": model_id(LIVE),
            "comparison": {
                "films": 777,
                "binary_auroc": compared(lead, half),
                "macro_auroc": compared(lead, half),
                "findings": {f: compared(*findings.get(f, (lead, half))) for f in FINDINGS},
            },
        }
    }


def test_an_equal_model_passes() -> None:
    assert failed(model("new")) == {}
    assert [check.name for check in gate(model("new"), LIVE, proofs=[PROOF], who="anna")] == [
        "test set",
        "any finding",
        "findings together",
        "each finding",
        "golden vectors",
        "parity",
        "operating points",
    ]


def test_the_starter_may_follow_the_starter() -> None:
    """The card of a real training run is understood in every part."""
    live = read_card(STARTER)
    points = {name: point + 1e-6 for name, point in live.thresholds.items()}
    copy = replace(live, version="0.2.1", files={**live.files, "more": "x"}, thresholds=points)
    checks = gate(copy, live, proofs=[PROOF], who="anna")
    assert [check for check in checks if not check.passed] == []
    assert "none of 14 is worse" in {check.words for check in checks}


@pytest.mark.parametrize(("value", "passes"), [(0.9, True), (0.76, True), (0.74, False)])
def test_no_worse_than_the_live_model_s_interval_reaches(value: float, passes: bool) -> None:
    names = failed(model("new", value))
    assert ("any finding" not in names and "findings together" not in names) is passes


def test_one_finding_that_is_much_worse_is_enough_and_fourteen_looks_are_allowed_for() -> None:
    new = model("new")
    test = dict(new.metrics["test"])

    def with_pneumothorax(value: float) -> ModelCard:
        findings = {**test["findings"], "Pneumothorax": auroc(value)}
        return replace(new, metrics={"test": {**test, "findings": findings}})

    assert failed(with_pneumothorax(0.66)) == {}  # below the interval of one look, 0.70, and within that of fourteen
    assert "pneumothorax: AUROC 0.64" in failed(with_pneumothorax(0.64))["each finding"]


def test_film_by_film_is_believed_before_two_cards() -> None:
    """A lead whose interval reaches zero; the cards' own intervals are much wider."""
    assert failed(model("new", metrics=paired(-0.01, 0.02), split_hash="another")) == {}
    assert "any finding" in failed(model("new", metrics=paired(-0.02, 0.01)))
    lost = paired(0.05, 0.01, Pneumothorax=(-0.2, 0.05))
    assert list(failed(model("new", metrics=lost))) == ["each finding"]


def test_a_comparison_with_another_model_counts_for_nothing() -> None:
    with_other = paired(0.1, 0.01)
    with_other["against"]["model_id"] = "another"
    assert "test set" in failed(model("new", metrics=with_other))


@pytest.mark.parametrize("fields", [{"split_hash": "another"}, {"metrics": {}}])
def test_figures_of_other_films_are_no_comparison(fields: dict[str, Any]) -> None:
    assert "measure it against the live model" in failed(model("new", **fields))["test set"]


def test_what_was_not_measured_does_not_pass() -> None:
    names = failed(model("new", metrics={}))
    assert {"any finding", "findings together", "each finding"} <= names.keys()


def test_what_the_live_model_cannot_say_nobody_needs_to() -> None:
    test = dict(LIVE.metrics["test"])
    findings = {label: figures for label, figures in test["findings"].items() if label != "Hernia"}
    bare = replace(LIVE, metrics={"test": {**test, "findings": findings}})
    assert failed(replace(model("new"), metrics=bare.metrics), bare) == {}


def test_proofs() -> None:
    assert failed(model("new"), proofs=[]).keys() == {"golden vectors", "parity"}
    bad = Check(name=PARITY, passed=False, words="0.2")
    assert failed(model("new"), proofs=[PROOF, bad]).keys() == {"golden vectors", "parity"}
    assert failed(model("new"), proofs=[PROOF, replace(bad, passed=True)]) == {}


def test_operating_points_are_its_own() -> None:
    assert "to the last digit" in failed(model("new", thresholds=LIVE.thresholds))["operating points"]
    lacking = {name: 0.6 for name in OUTPUTS if name != "Pleural_Thickening"}
    assert "pleural thickening" in failed(model("new", thresholds=lacking))["operating points"]


@pytest.mark.parametrize(
    ("brought", "passes"), [("bert", True), ("anna", False), ("anna (command line)", False), ("", False)]
)
def test_two_people(brought: str, passes: bool) -> None:
    assert ("two people" not in failed(model("new"), other_than=brought)) is passes
