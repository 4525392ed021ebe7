"""What the windows say of a study to a person; no sentence is an all-clear."""

from __future__ import annotations

from typing import Final

from schemas.decision import Urgency
from schemas.flag import WITHDRAWN
from schemas.not_analysed import WORDS
from worker.record.reading_list import OpenStudy

CAUTION: Final = "For triage, not for diagnosis. The absence of a flag is not an all-clear."


def comments(study: OpenStudy) -> str:
    """Why the study stands where it does, in sentences, the caution last."""
    sentences = [_headline(study)]
    if study.reasons:
        words = "; ".join(study.reasons)
        sentences.append(f"{words[0].upper()}{words[1:]}.")
    sentences += [f"Not analysed: {WORDS[code]}." for code in study.not_analysed]
    if study.priority > study.urgency:
        sentences.append(f"Ordered as {study.priority.name}.")
    return " ".join([*sentences, CAUTION])


def _headline(study: OpenStudy) -> str:
    if study.withdrawn is not None:
        return f"hilum withdrew its flag, {WITHDRAWN[study.withdrawn]}."
    if study.urgency > Urgency.ROUTINE:
        return f"hilum raised this study: {study.urgency.name}."
    if study.revision:
        return "hilum read this study and left it in its standing order."
    if study.not_analysed:
        return "hilum could not analyse this study; it keeps its standing order."
    return "hilum has not read this study yet."
