"""The site's policies by number: as they are stored, proposed, set beside one another, and put into force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Final, Literal

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, Label

CONFIGURED: Final = 0  # the number of the configuration's policy
BINARY: Final = "binary"
OUTPUTS: Final[tuple[str, ...]] = (*map(str, FINDINGS), BINARY)  # what a rule may be of
SILENT: Final = Rule(urgency=Urgency.ROUTINE)  # of a finding without a rule: stored, raises nothing
MOST_FLAGS: Final = 10_000.0  # an hour, of a budget

_KEYS: Final = frozenset({"findings", "binary", "on_disagreement", "budget"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyVersion:
    """A policy and what became of it."""

    number: int
    policy: Policy
    note: str  # what it is for
    made_by: str
    made_at: datetime
    effective_at: datetime | None  # None: proposed, never in force
    enacted_by: str | None
    enacted_because: str | None
    followed: int | None  # the number of the one before it

    def to_json(self) -> dict[str, Any]:
        """As programs are told of it."""
        return {
            "number": self.number,
            "policy": policy_to_json(self.policy),
            "note": self.note,
            "made_by": self.made_by,
            "made_at": self.made_at.isoformat(),
            "effective_at": None if self.effective_at is None else self.effective_at.isoformat(),
            "enacted_by": self.enacted_by,
            "enacted_because": self.enacted_because,
            "followed": self.followed,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class InForce:
    """What readers decide by, and the number that they record with it."""

    number: int
    policy: Policy
    operating_points: Mapping[str, float]  # of the policy, else of the model's card


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One line in which two policies differ, in words."""

    what: str
    before: str
    after: str


def rule_of(policy: Policy, output: str) -> Rule:
    """The rule of a finding or "binary"; one that is not named is silent."""
    rule = policy.binary if output == BINARY else policy.findings.get(Label(output))
    return SILENT if rule is None else rule


def made_of(
    rules: Mapping[str, Rule], on_disagreement: Literal["flag", "hold"] = "flag", budget: float | None = None
) -> Policy:
    """A policy of rules by output; those that say nothing are left out."""
    speaking = {output: rule for output, rule in rules.items() if rule != SILENT}
    return Policy(
        findings={Label(output): rule for output, rule in speaking.items() if output != BINARY},
        binary=speaking.get(BINARY),
        on_disagreement=on_disagreement,
        budget=budget,
    )


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """As stored: urgencies by name, every rule that says something."""
    rules = {output: rule_of(policy, output) for output in OUTPUTS}
    return {
        "findings": {o: _rule_to_json(r) for o, r in rules.items() if o != BINARY and r != SILENT},
        "binary": None if rules[BINARY] == SILENT else _rule_to_json(rules[BINARY]),
        "on_disagreement": policy.on_disagreement,
        "budget": policy.budget,
    }


def policy_from_json(raw: object) -> Policy:
    """Back again.

    Raises
    ------
    ConfigurationError
        Something is not what a policy has there; the message names it.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("findings", {}), Mapping):
        raise ConfigurationError('policy: not of the form {"findings": {"Pneumothorax": {"urgency": "STAT"}}}')
    if unknown := sorted(str(key)[:80] for key in raw.keys() - _KEYS):
        raise ConfigurationError(f"policy: {', '.join(unknown)}: there is no such setting")
    findings = raw.get("findings", {})
    rules = {_output(name): _rule(str(name), rule) for name, rule in findings.items()}
    if raw.get("binary") is not None:
        rules[BINARY] = _rule(BINARY, raw["binary"])
    disagreement = raw.get("on_disagreement", "flag")
    if disagreement not in ("flag", "hold"):
        raise ConfigurationError('policy: on_disagreement: "flag" or "hold"')
    return made_of(rules, disagreement, budget_of(raw.get("budget")))


def threshold_of(what: str, raw: object) -> float | Literal["card"]:
    """A threshold as somebody wrote it. Raises `ConfigurationError`."""
    if raw == "card":
        return "card"
    number = _number(raw)
    if number is None or not 0 < number < 1:
        raise ConfigurationError(f'policy: {what}: threshold: a number between 0 and 1, or "card"')
    return number


def budget_of(raw: object) -> float | None:
    """A budget as somebody wrote it; None: there is none. Raises `ConfigurationError`."""
    if raw is None:
        return None
    number = _number(raw)
    if number is None or not 0 < number <= MOST_FLAGS:
        raise ConfigurationError(f"policy: budget: flags an hour, more than 0 and at most {MOST_FLAGS:.0f}")
    return number


def differences(before: Policy, after: Policy) -> tuple[Change, ...]:
    """What would be another, finding by finding in the order of the model's outputs."""
    changes = [
        Change(what=spoken(output), before=rule_in_words(old), after=rule_in_words(new))
        for output in OUTPUTS
        if (old := rule_of(before, output)) != (new := rule_of(after, output))
    ]
    words = {"flag": "raised all the same", "hold": "kept silent"}
    if before.on_disagreement != after.on_disagreement:
        told = (words[policy.on_disagreement] for policy in (before, after))
        changes.append(Change(what="a finding that the binary model does not see", before=next(told), after=next(told)))
    if before.budget != after.budget:
        changes.append(
            Change(what="alert budget", before=budget_in_words(before.budget), after=budget_in_words(after.budget))
        )
    return tuple(changes)


def spoken(output: str) -> str:
    """ "pleural thickening", "any finding"."""
    return "any finding" if output == BINARY else output.replace("_", " ").lower()


def rule_in_words(rule: Rule) -> str:
    """ "STAT from 0.62 on", "silent"."""
    urgency = "silent" if rule.urgency is Urgency.ROUTINE else rule.urgency.name
    if rule.threshold == "card":
        return urgency if rule == SILENT else f"{urgency} at the card's threshold"
    return f"{urgency} from {rule.threshold:g} on"


def budget_in_words(budget: float | None) -> str:
    """ "6 flags an hour", "none"."""
    return "none" if budget is None else f"{budget:g} flags an hour"


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    return {"urgency": rule.urgency.name, "threshold": rule.threshold}


def _output(name: object) -> str:
    if name not in OUTPUTS or name == BINARY:
        raise ConfigurationError(f"policy: {str(name)[:80]!r} is no finding; choose among {', '.join(FINDINGS)}")
    return str(name)


def _rule(what: str, raw: object) -> Rule:
    if not isinstance(raw, Mapping) or raw.keys() - {"urgency", "threshold"} or "urgency" not in raw:
        raise ConfigurationError(f"policy: {what}: an urgency and, if it is not the card's, a threshold")
    urgency = raw["urgency"]
    if not isinstance(urgency, str) or urgency not in Urgency.__members__:
        raise ConfigurationError(f"policy: {what}: urgency: one of {', '.join(u.name for u in reversed(Urgency))}")
    return Rule(urgency=Urgency[urgency], threshold=threshold_of(what, raw.get("threshold", "card")))


def _number(raw: object) -> float | None:
    """A finite number, also where a form writes it as text."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None
