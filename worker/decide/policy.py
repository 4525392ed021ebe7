"""One film: finding x operating point -> urgency, with reasons for a person."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.decision import Consistency, Decision, Policy, Reason, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS
from schemas.prediction import Prediction

BINARY = "binary"


def _threshold(rule: Rule | None, name: str, card: Mapping[str, float]) -> float:
    if rule is not None and rule.threshold != "card":
        return rule.threshold
    try:
        return card[name]
    except KeyError:
        raise ConfigurationError(
            f"policy: {name}: the model's card has no operating point for it; give a number as its threshold"
        ) from None


def thresholds(policy: Policy, card: Mapping[str, float]) -> dict[str, float]:
    """Every operating point in force, keyed by NIH label and "binary": the policy's number, else the card's.

    Raises
    ------
    ConfigurationError
        Neither the policy nor the card names one. Called at start, so that no film meets it.
    """
    table = {str(finding): _threshold(policy.findings.get(finding), finding, card) for finding in FINDINGS}
    return {**table, BINARY: _threshold(policy.binary, BINARY, card)}


def decide(prediction: Prediction, policy: Policy, operating_points: Mapping[str, float]) -> Decision:
    """What the policy says of one film.

    A finding reaches its operating point when p >= threshold. The two models are compared: any of the 14 findings
    at its operating point against the binary model at its own. When only the labels are positive the film is raised
    all the same, unless the policy says "hold"; when only the binary model is positive, nothing is raised but what
    the policy's `binary` rule says. Either way the disagreement is recorded.
    """
    positive = [f for f in FINDINGS if prediction.findings[f] >= operating_points[f]]
    binary_positive = prediction.binary >= operating_points[BINARY]
    consistency = {
        (True, False): Consistency.LABELS_ONLY,
        (False, True): Consistency.BINARY_ONLY,
    }.get((bool(positive), binary_positive), Consistency.AGREE)

    reasons = [
        Reason(
            finding=finding,
            probability=prediction.findings[finding],
            threshold=operating_points[finding],
            urgency=policy.findings[finding].urgency,
        )
        for finding in positive
        if finding in policy.findings and policy.findings[finding].urgency > Urgency.ROUTINE
    ]
    if consistency is Consistency.LABELS_ONLY and policy.on_disagreement == "hold":
        reasons = []
    if binary_positive and policy.binary is not None and policy.binary.urgency > Urgency.ROUTINE:
        reasons.append(
            Reason(
                finding="Any finding",
                probability=prediction.binary,
                threshold=operating_points[BINARY],
                urgency=policy.binary.urgency,
            )
        )
    reasons.sort(key=lambda r: (-r.urgency, -r.probability, r.finding))
    return Decision(
        urgency=max((r.urgency for r in reasons), default=Urgency.ROUTINE),
        reasons=tuple(reasons),
        consistency=consistency,
        thresholds=dict(operating_points),
    )
