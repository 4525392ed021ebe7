"""What became of one film at door 2, and who is to hear of its study."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Literal, TypeAlias

from schemas.decision import Decision, Urgency
from schemas.flag import Withdrawal
from schemas.not_analysed import NotAnalysed
from schemas.prediction import Prediction
from schemas.scanner import Scanner


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """Both models have spoken and the policy has decided."""

    prediction: Prediction
    decision: Decision
    remarks: tuple[str, ...] = ()
    scanner: Scanner | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRead:
    """The film has no score. `detail` is a technical remark for the administrator; never patient data."""

    code: NotAnalysed
    detail: str = ""
    scanner: Scanner | None = None  # None: its header could not be read either


FilmOutcome: TypeAlias = Read | NotRead


@dataclass(frozen=True, kw_only=True, slots=True)
class Audience:
    """A destination by name, and which studies it hears of; what is empty lets everything through."""

    name: str
    when: Literal["analysed", "flagged"] = "flagged"  # every study of which a film was read, or only those raised
    keeps_tasks: bool = False  # its flags are tasks that somebody must close when the study has been reported
    urgency: Urgency = Urgency.ROUTINE  # at least
    called_ae: frozenset[str] = frozenset()  # one of the study's films came in under it
    modality: frozenset[str] = frozenset()
    findings: frozenset[str] = frozenset()  # one of them is among the reasons
    hours: tuple[time, time] | None = None  # local time, from and until; over midnight where until comes first


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What there is to tell of a study, as far as it decides who hears of it."""

    urgency: Urgency
    findings: frozenset[str]
    called_ae: frozenset[str]
    modality: str
    decided_at: datetime  # aware
    withdrawn: Withdrawal | None = None


# From the news, and the destinations that were told of the study before, to the names of those that hear it.
Route: TypeAlias = Callable[[News, Collection[str]], Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """The model in service: `id` is the bundle's content address."""

    id: str
    name: str
    version: str
