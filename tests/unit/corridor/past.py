"""A record of studies that were read, with probabilities that are drawn, for previews to go through."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from schemas.card import ModelCard, model_id, read_card
from schemas.decision import Policy
from schemas.findings import LABELS
from schemas.outcome import ModelRef, Read
from schemas.prediction import Prediction
from tests.contract.record.given import NOW, Record
from worker.decide.policy import decide, thresholds
from worker.decide.study import settle

CARD: Final[ModelCard] = read_card(Path(__file__).parents[3] / "worker" / "models" / "starter")
MODEL: Final = ModelRef(id=model_id(CARD), name=CARD.name, version=CARD.version)
NAME: Final = {label.name: label for label in LABELS}


def drawn(source: random.Random) -> Prediction:
    """Probabilities as the packaged model gives them: most are small."""
    return Prediction(
        model_id=MODEL.id,
        binary=source.random(),
        findings={label: min(1.0, source.gammavariate(1.2, 0.03)) for label in LABELS},
    )


def said(**findings: float) -> Prediction:
    """Next to nothing of anything but `findings`, which are named as in `Label`."""
    probabilities = dict.fromkeys(LABELS, 0.001) | {NAME[name]: p for name, p in findings.items()}
    return Prediction(model_id=MODEL.id, binary=0.9, findings=probabilities)


def take(
    record: Record, study: int, seen: Prediction, *, film: int = 1, at: datetime = NOW, policy: Policy | None = None
) -> None:
    """A film is received and read under `policy`."""
    decision = decide(seen, policy or Policy(), thresholds(policy or Policy(), CARD.thresholds))
    record.receive(film, study, at=at)
    outcome = Read(prediction=seen, decision=decision)
    record.jobs.conclude(record.claim(at=at), "reader", outcome, settle, lambda news, told: ["pacs"], MODEL, at)


def week(record: Record, studies: int, *, until: datetime = NOW, seed: int = 1) -> None:
    """So many studies, spread evenly over the seven days before `until`; every third has two films."""
    source = random.Random(seed)
    apart = timedelta(days=7) / (studies + 1)
    for study in range(studies):
        for film in range(1 + (study % 3 == 0)):
            at = until - timedelta(days=7) + (study + 1) * apart + timedelta(seconds=film)
            take(record, study + 1, drawn(source), film=film + 1, at=at)
