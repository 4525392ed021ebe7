"""A study: the highest of its films."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.decision import Reason, StudyVerdict, Urgency
from schemas.flag import FilmResult


def settle(films: Iterable[FilmResult]) -> StudyVerdict:
    """The urgency of a study and its reasons: each finding once, by its most probable film, most urgent first."""
    best: dict[str, Reason] = {}
    for reason in (r for film in films for r in film.reasons):
        known = best.get(reason.finding)
        if known is None or (reason.urgency, reason.probability) > (known.urgency, known.probability):
            best[reason.finding] = reason
    reasons = sorted(best.values(), key=lambda r: (-r.urgency, -r.probability, r.finding))
    return StudyVerdict(urgency=max((r.urgency for r in reasons), default=Urgency.ROUTINE), reasons=tuple(reasons))
