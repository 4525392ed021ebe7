"""What radiologists do with a study on the list: claim it, read it, say whether its flag was right."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas.findings import Label


class Judgement(StrEnum):
    """What whoever read the study says of what hilum said of it."""

    AGREE = "agree"
    DISAGREE = "disagree"


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """A reader's word on a study, a label for retraining. `findings` are those that the reader sees."""

    study_uid: str
    reader: str
    judgement: Judgement
    findings: tuple[Label, ...]
    at: datetime
