"""What the models said of past studies, and who was told: to be gone through again under another policy. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from schemas.decision import Urgency
from schemas.identity import InstanceRef
from schemas.lifecycle import OutboxState
from schemas.not_analysed import NotAnalysed
from schemas.prediction import Prediction
from schemas.tables import Job, OutboxRow, PredictionRow, Revision, Study
from worker.record.database import Database
from worker.record.revisions import instance_of
from worker.record.rows import word
from worker.record.shapes import findings_from_json

CHUNK: Final = 200  # studies in one look

_HERE: Final = (Study.received_at >= bindparam("since"), Study.received_at < bindparam("until"))
_COUNT: Final = select(func.count()).select_from(Study).where(*_HERE)
_STUDIES: Final = (
    select(Study.id, Study.study_uid, Study.context)
    .where(*_HERE, Study.id > bindparam("after"))
    .order_by(Study.id)
    .limit(bindparam("limit"))
)
_of_these: Final[Any] = bindparam("ids", expanding=True)
_FILMS: Final = (
    select(
        Job.id,
        Job.study_id,
        Job.sop_uid,
        Job.series_uid,
        Job.sop_class,
        Job.transfer_syntax,
        Job.called_ae,
        Job.not_analysed,
        func.coalesce(PredictionRow.concluded_at, Job.concluded_at).label("concluded_at"),
        PredictionRow.model_id,
        PredictionRow.binary,
        PredictionRow.findings,
        PredictionRow.thresholds,
    )
    .join(PredictionRow, PredictionRow.job_id == Job.id, isouter=True)
    .where(Job.study_id.in_(_of_these), PredictionRow.job_id.is_not(None) | Job.not_analysed.is_not(None))
    .order_by(Job.study_id, func.coalesce(PredictionRow.concluded_at, Job.concluded_at), Job.id, PredictionRow.reading)
)
_TOLD: Final = (
    select(OutboxRow.study_id, OutboxRow.destination, func.max(OutboxRow.urgency).label("urgency"))
    .join(Revision, Revision.id == OutboxRow.revision_id)
    .where(
        OutboxRow.study_id.in_(_of_these),
        OutboxRow.state != word(OutboxState.SUPERSEDED),
        Revision.withdrawn.is_(None),
    )
    .group_by(OutboxRow.study_id, OutboxRow.destination)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PastFilm:
    """What became of a film, once for each time that it was read."""

    version: int  # the job: another number is another version of the instance
    instance: InstanceRef
    called_ae: str
    concluded_at: datetime
    prediction: Prediction | None  # None: not analysed
    operating_points: Mapping[str, float]  # that were in force
    not_analysed: NotAnalysed | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PastStudy:
    """A study's films in the order in which they were concluded, and what each destination heard at most."""

    study_uid: str
    modality: str
    films: tuple[PastFilm, ...]
    told: Mapping[str, Urgency]


class History:
    """Studies by when their first film came in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, since: datetime, until: datetime) -> int:
        """How many there are."""
        values = {"since": since, "until": until}
        return self._database.read(lambda connection: connection.execute(_COUNT, values).scalar_one())

    def studies(self, since: datetime, until: datetime) -> Iterator[PastStudy]:
        """Every study of [since, until); some are read at a time, so that memory does not grow with their number."""
        after: int | None = 0
        while after is not None:
            after, chunk = self._chunk({"since": since, "until": until, "after": after, "limit": CHUNK})
            yield from chunk

    def _chunk(self, values: Mapping[str, Any]) -> tuple[int | None, list[PastStudy]]:
        def work(connection: Connection) -> tuple[int | None, list[PastStudy]]:
            studies = connection.execute(_STUDIES, values).all()
            ids = {"ids": [study.id for study in studies]}
            films = _by_study(connection.execute(_FILMS, ids))
            told = _by_study(connection.execute(_TOLD, ids))
            past = [
                PastStudy(
                    study_uid=study.study_uid,
                    modality=study.context["modality"],
                    films=tuple(_film(film, study.study_uid) for film in films[study.id]),
                    told={row.destination: Urgency(row.urgency) for row in told[study.id]},
                )
                for study in studies
            ]
            return (studies[-1].id if len(studies) == values["limit"] else None), past

        return self._database.read(work)


def _by_study(rows: Iterable[Any]) -> dict[int, list[Any]]:
    gathered: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        gathered[row.study_id].append(row)
    return gathered


def _film(row: Any, study_uid: str) -> PastFilm:
    was_read = row.binary is not None
    return PastFilm(
        version=row.id,
        instance=instance_of(row, study_uid),
        called_ae=row.called_ae,
        concluded_at=row.concluded_at,
        prediction=Prediction(model_id=row.model_id, binary=row.binary, findings=findings_from_json(row.findings))
        if was_read
        else None,
        operating_points=row.thresholds if was_read else {},
        not_analysed=None if was_read else NotAnalysed(row.not_analysed),
    )
