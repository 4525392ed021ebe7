from __future__ import annotations

import pytest

from schemas.decision import Consistency, Policy, Reason, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, LABELS, Label
from schemas.flag import FilmResult
from schemas.identity import InstanceRef
from schemas.prediction import Prediction
from worker.decide.policy import decide, thresholds
from worker.decide.study import settle

CARD = {**{str(f): 0.5 for f in FINDINGS}, "binary": 0.5}


def prediction(binary: float, **findings: float) -> Prediction:
    given = {Label[name]: p for name, p in findings.items()}
    return Prediction(model_id="m", binary=binary, findings={label: given.get(label, 0.1) for label in LABELS})


def test_a_named_finding_at_its_operating_point_raises_the_film() -> None:
    decision = decide(prediction(0.9, PNEUMOTHORAX=0.5), Policy(), CARD)
    assert decision.urgency is Urgency.STAT
    assert [r.words for r in decision.reasons] == ["pneumothorax 0.50, threshold 0.50"]
    assert decision.consistency is Consistency.AGREE


def test_a_finding_outside_the_policy_is_stored_and_silent() -> None:
    decision = decide(prediction(0.9, MASS=0.99), Policy(), CARD)
    assert decision.urgency is Urgency.ROUTINE
    assert decision.reasons == ()


def test_reasons_stand_most_urgent_first() -> None:
    decision = decide(prediction(0.9, EFFUSION=0.99, PNEUMOTHORAX=0.6), Policy(), CARD)
    assert [r.finding for r in decision.reasons] == ["Pneumothorax", "Effusion"]


@pytest.mark.parametrize(("on_disagreement", "urgency"), [("flag", Urgency.STAT), ("hold", Urgency.ROUTINE)])
def test_labels_against_the_binary_model(on_disagreement: str, urgency: Urgency) -> None:
    policy = Policy(on_disagreement=on_disagreement)  # type: ignore[arg-type]
    decision = decide(prediction(0.2, PNEUMOTHORAX=0.9), policy, CARD)
    assert decision.consistency is Consistency.LABELS_ONLY
    assert decision.urgency is urgency


def test_the_binary_model_alone_raises_only_by_its_own_rule() -> None:
    film = prediction(0.9)
    silent = decide(film, Policy(), CARD)
    assert (silent.consistency, silent.urgency) == (Consistency.BINARY_ONLY, Urgency.ROUTINE)
    raised = decide(film, Policy(binary=Rule(urgency=Urgency.URGENT)), CARD)
    assert raised.urgency is Urgency.URGENT
    assert raised.reasons[0].words == "any finding 0.90, threshold 0.50"


def test_the_policys_number_comes_before_the_cards() -> None:
    policy = Policy(findings={Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.3)})
    assert thresholds(policy, CARD)["Pneumothorax"] == 0.3
    assert thresholds(policy, CARD)["Mass"] == 0.5


def test_a_card_without_an_operating_point_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="Hernia"):
        thresholds(Policy(), {k: v for k, v in CARD.items() if k != "Hernia"})


def film(*reasons: Reason) -> FilmResult:
    ref = InstanceRef(study_uid="1.2", series_uid="1.3", sop_uid="1.4", sop_class="1.5", transfer_syntax="1.6")
    return FilmResult(instance=ref, reasons=reasons)


def test_a_study_is_the_highest_of_its_films() -> None:
    weak = Reason(finding="Pneumothorax", probability=0.6, threshold=0.5, urgency=Urgency.STAT)
    strong = Reason(finding="Pneumothorax", probability=0.8, threshold=0.5, urgency=Urgency.STAT)
    other = Reason(finding="Effusion", probability=0.9, threshold=0.5, urgency=Urgency.URGENT)
    verdict = settle([film(weak, other), film(strong), film()])
    assert verdict.urgency is Urgency.STAT
    assert verdict.reasons == (strong, other)
    assert settle([]).urgency is Urgency.ROUTINE


def test_small_probabilities_are_told_with_a_third_digit() -> None:
    reason = Reason(finding="Effusion", probability=0.0537, threshold=0.0477, urgency=Urgency.URGENT)
    assert reason.words == "effusion 0.054, threshold 0.048"
