"""What became of one film at door 2, and who is to hear of its study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.decision import Decision
from schemas.not_analysed import NotAnalysed
from schemas.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """Both models have spoken and the policy has decided."""

    prediction: Prediction
    decision: Decision
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRead:
    """The film has no score. `detail` is a technical remark for the administrator; never patient data."""

    code: NotAnalysed
    detail: str = ""


FilmOutcome: TypeAlias = Read | NotRead


@dataclass(frozen=True, kw_only=True, slots=True)
class Audience:
    """A destination by name, and which studies it hears of: every one analysed, or only those that are raised."""

    name: str
    when: Literal["analysed", "flagged"] = "flagged"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """The model in service: `id` is the bundle's content address."""

    id: str
    name: str
    version: str
