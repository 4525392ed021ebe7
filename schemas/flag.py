"""The urgency record of a study, as it is told to the world: one record, every dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from schemas.decision import Reason, Urgency
from schemas.findings import Label
from schemas.identity import InstanceRef, StudyContext
from schemas.not_analysed import NotAnalysed


class Withdrawal(StrEnum):
    """Why a flag is taken back."""

    PERSON = "person"  # somebody looked and decided so
    PATIENT = "patient"  # the films are not this patient's, or not this study's
    MODEL = "model"  # the model that raised it was recalled
    REPORTED = "reported"  # the study has been reported: nobody needs to be told to read it any more


WITHDRAWN: Final[Mapping[Withdrawal, str]] = {
    Withdrawal.PERSON: "on a person's decision",
    Withdrawal.PATIENT: "the films were not this patient's",
    Withdrawal.MODEL: "the model that raised it was recalled",
    Withdrawal.REPORTED: "the study has been reported",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmResult:
    """One film of the study: read (probabilities) or not analysed (code), never both."""

    instance: InstanceRef
    binary: float | None = None
    findings: Mapping[Label, float] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    not_analysed: NotAnalysed | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """Revision `revision` of the study's urgency. Revisions start at 1.

    By itself urgency only rises. A withdrawn one is ROUTINE without reasons: the study is back in its standing order.
    """

    study_uid: str
    revision: int
    urgency: Urgency
    reasons: tuple[Reason, ...]
    films: tuple[FilmResult, ...]
    context: StudyContext
    model_id: str
    model_name: str
    model_version: str
    decided_at: datetime  # aware
    predecessor: int | None = None  # the last revision that this destination has taken
    predecessor_model_id: str = ""  # the model that made it; empty: the same one
    predecessor_object_id: str = ""  # as which it was sent (`Receipt.object_id`); empty: not known
    withdrawn: Withdrawal | None = None
    order_urgency: Urgency = Urgency.ROUTINE  # of the study's orders; no dialect tells the order less than this

    def __post_init__(self) -> None:
        if self.decided_at.tzinfo is None:
            raise ValueError("decided_at: naive datetime")
        if self.revision < 1:
            raise ValueError("revision starts at 1")
        if self.withdrawn is not None and (self.reasons or self.urgency):
            raise ValueError("a withdrawn flag is ROUTINE and has no reasons")


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A destination's word that it has the flag: the identifier of what was sent, and the proof.

    `proven` is False where more is to come: Storage Commitment was asked for, and its answer is on its way.
    """

    object_id: str
    proof: str  # e.g. "C-STORE 0x0000"
    proven: bool = True
