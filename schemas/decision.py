"""From probabilities to an urgency: the site's policy and what it decided for one film and for a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal

from schemas.findings import Label


class Urgency(IntEnum):
    """Ordered: a higher number is read earlier. ROUTINE is the standing order, never an all-clear."""

    ROUTINE = 0
    URGENT = 1
    STAT = 2


class Consistency(StrEnum):
    """How the binary model and the 15 labels agree (see `worker.decide.policy`)."""

    AGREE = "agree"
    LABELS_ONLY = "labels-only"  # a finding above its threshold, the binary model below its own
    BINARY_ONLY = "binary-only"  # the binary model positive, no finding above its threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One line of the policy: this finding at this operating point has this urgency."""

    urgency: Urgency
    threshold: float | Literal["card"] = "card"  # "card": the operating point in the model's card


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Findings that are not named here are stored and silent."""

    findings: Mapping[Label, Rule] = field(
        default_factory=lambda: {
            Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT),
            Label.EFFUSION: Rule(urgency=Urgency.URGENT),
        }
    )
    binary: Rule | None = None  # urgency for "any finding" on its own; None: stored and silent
    on_disagreement: Literal["flag", "hold"] = "flag"  # labels-only: raise all the same, or keep silent
    budget: float | None = None  # flags an hour that readers can take: a line to plan by, nothing is held back for it


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a film is raised: the finding, its probability and the threshold it passed."""

    finding: str  # NIH's label, or "Any finding" for the binary model
    probability: float
    threshold: float
    urgency: Urgency

    @property
    def words(self) -> str:
        """For a person: "pneumothorax 0.91, threshold 0.62"; small numbers with a third digit."""
        name = self.finding.replace("_", " ").lower()
        digits = 2 if min(self.probability, self.threshold) >= 0.1 else 3
        return f"{name} {self.probability:.{digits}f}, threshold {self.threshold:.{digits}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the policy says of one film."""

    urgency: Urgency
    reasons: tuple[Reason, ...]
    consistency: Consistency
    thresholds: Mapping[str, float] = field(default_factory=dict)  # every threshold that was looked at
    policy: int = 0  # number of the policy that said so


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyVerdict:
    """What the films of a study say together; `worker.decide.study.settle` makes it."""

    urgency: Urgency
    reasons: tuple[Reason, ...]
