"""What a candidate says of films in silence, beside what was said aloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from schemas.decision import Decision, Urgency
from schemas.prediction import Prediction
from schemas.registry import ShadowFilm
from schemas.tables import Job, ShadowPredictionRow, Study
from worker.record.database import Database
from worker.record.shapes import reason_to_json

MOST: Final = 50_000  # films that one comparison goes through: the latest

_KEPT: Final = (ShadowPredictionRow.job_id == bindparam("job"), ShadowPredictionRow.model_id == bindparam("model"))
_WINDOW: Final = (
    ShadowPredictionRow.model_id == bindparam("model"),
    ShadowPredictionRow.at >= bindparam("since"),
    ShadowPredictionRow.at < bindparam("until"),
)
_FILMS: Final = (
    select(
        Study.study_uid,
        Study.received_at,
        Study.order_urgency,
        ShadowPredictionRow.urgency,
        ShadowPredictionRow.reasons,
        ShadowPredictionRow.live_urgency,
        ShadowPredictionRow.live_reasons,
    )
    .join(Job, Job.id == ShadowPredictionRow.job_id)
    .join(Study, Study.id == Job.study_id)
    .where(*_WINDOW)
    .order_by(ShadowPredictionRow.at.desc(), ShadowPredictionRow.job_id.desc())
    .limit(bindparam("limit"))
)
_SPELL: Final = select(func.count(), func.min(ShadowPredictionRow.at), func.max(ShadowPredictionRow.at)).where(
    ShadowPredictionRow.model_id == bindparam("model")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowSpell:
    """How much a candidate has read in silence."""

    films: int
    first_at: datetime | None
    last_at: datetime | None


class Shadows:
    """Films by both models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(
        self,
        job: int,
        said: tuple[Prediction, Decision],
        aloud: tuple[Prediction, Decision],
        now: datetime,
    ) -> None:
        """What the candidate said of a film; of a film that is read again, the latest counts."""
        (prediction, decision), (live, told) = said, aloud
        row = {
            "job_id": job,
            "model_id": prediction.model_id,
            "binary": prediction.binary,
            "findings": dict(prediction.findings),
            "thresholds": dict(decision.thresholds),
            "urgency": int(decision.urgency),
            "reasons": [reason_to_json(reason) for reason in decision.reasons],
            "live_model_id": live.model_id,
            "live_urgency": int(told.urgency),
            "live_reasons": [reason_to_json(reason) for reason in told.reasons],
            "at": now,
        }

        def work(connection: Connection) -> None:
            values = {"job": job, "model": prediction.model_id}
            connection.execute(delete(ShadowPredictionRow).where(*_KEPT), values)
            connection.execute(insert(ShadowPredictionRow), row)

        self._database.write(work)

    def spell(self, model: str) -> ShadowSpell:
        """How much it has read."""

        def work(connection: Connection) -> ShadowSpell:
            films, first, last = connection.execute(_SPELL, {"model": model}).one()
            return ShadowSpell(films=films, first_at=first, last_at=last)

        return self._database.read(work)

    def films(self, model: str, since: datetime, until: datetime, limit: int = MOST) -> list[ShadowFilm]:
        """Films that it read in [since, until), the latest `limit` of them, the latest first."""
        values = {"model": model, "since": since, "until": until, "limit": limit}
        return self._database.read(lambda connection: [_film(row) for row in connection.execute(_FILMS, values)])


def _film(row: Any) -> ShadowFilm:
    return ShadowFilm(
        study_uid=row.study_uid,
        received_at=row.received_at,
        order_urgency=Urgency(row.order_urgency),
        live_urgency=Urgency(row.live_urgency),
        urgency=Urgency(row.urgency),
        live_findings=_findings(row.live_reasons),
        findings=_findings(row.reasons),
    )


def _findings(reasons: list[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(reason["finding"] for reason in reasons)
