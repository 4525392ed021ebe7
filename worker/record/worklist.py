"""What the radiologist and the administrator look at. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, exists, func, literal, or_, select

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.lifecycle import JobState, OutboxState, StudyState
from schemas.not_analysed import NotAnalysed
from schemas.tables import DestinationRow, Job, OutboxRow, PauseRow, PredictionRow, RejectionRow, Revision, Study
from worker.record.database import Database
from worker.record.rows import ON_LIST, one_of

# STAT goes first, then what has waited too long: a stream of urgent studies starves nobody.
_PLACE: Final = case(
    (Study.rank >= int(Urgency.STAT), literal(3)),
    (Study.received_at <= bindparam("overdue_since"), literal(2)),
    else_=Study.rank,
)
_OVERDUE: Final = 2
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_WORDS: Final = 6
_PAGE: Final = (
    select(Study, _PLACE.label("place"))
    .where(*ON_LIST)
    .order_by(_PLACE.desc(), Study.received_at, Study.id)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
_SEARCHED: Final = tuple(
    func.lower(Study.context[key].as_string())
    for key in ("patient_name", "patient_id", "accession_number", "study_description")
)
_FILMS: Final = (
    select(Job.study_id, Job.state, Job.not_analysed, func.count().label("films"))
    .where(Job.study_id.in_(bindparam("ids", expanding=True)), Job.current)
    .group_by(Job.study_id, Job.state, Job.not_analysed)
    .order_by(func.min(Job.id))
)
_DELIVERIES: Final = (
    select(
        OutboxRow.study_id,
        OutboxRow.destination,
        OutboxRow.revision,
        OutboxRow.state,
        OutboxRow.attempts,
        OutboxRow.last_error,
        OutboxRow.sent_at,
    )
    .where(OutboxRow.study_id.in_(bindparam("ids", expanding=True)))
    .order_by(OutboxRow.destination, OutboxRow.revision)
)
_TOKEN: Final = select(func.count(), func.sum(Study.changes), func.max(Study.id)).where(Study.closed.is_(False))
_TURNED_AWAY: Final = select(func.sum(RejectionRow.count), func.max(RejectionRow.id))
_NOTICED: Final = select(
    select(func.max(PauseRow.id)).scalar_subquery(), func.count(), func.max(DestinationRow.since)
).select_from(DestinationRow)
_BY_URGENCY: Final = select(Study.rank, func.count()).where(*ON_LIST).group_by(Study.rank)
_BY_STATE: Final = (
    select(Job.state, func.count())
    .where(one_of(Job.state, [JobState.SPOOLED, JobState.READING, JobState.FAILED]))
    .group_by(Job.state)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which studies of the list are wanted; what is empty lets everything through."""

    text: str = ""  # each of its words in the name, ID, accession number or description
    urgency: Urgency | None = None
    modality: str = ""
    reader: str = ""  # whose claims
    free: bool = False  # what nobody has claimed
    not_analysed: bool = False  # a film of it could not be read

    def conditions(self) -> list[Any]:
        """For the statement that looks for studies."""
        found: list[Any] = []
        for word_ in self.text.lower().split()[:_MOST_WORDS]:
            found.append(or_(*(column.contains(word_, autoescape=True) for column in _SEARCHED)))
        if self.urgency is not None:
            found.append(Study.rank == int(self.urgency))
        if self.modality:
            found.append(Study.context["modality"].as_string() == self.modality)
        if self.reader:
            found.append(Study.claimed_by == self.reader)
        if self.free:
            found.append(Study.claimed_by.is_(None))
        if self.not_analysed:
            film = (Job.study_id == Study.id, Job.current, Job.not_analysed.is_not(None))
            found.append(exists().where(*film))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliverySummary:
    """How far a destination is with the latest revision of a study."""

    destination: str
    revision: int
    state: OutboxState
    attempts: int
    last_error: str | None
    sent_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorklistRow:
    """One study. `films` counts instances by the state of their latest version."""

    study_uid: str
    place: int  # in the list, the highest first; groups of equal place stand together
    urgency: Urgency  # the flag's or the order's, whichever is higher
    overdue: bool  # it has waited so long that it goes before all but STAT
    order_urgency: Urgency
    reasons: tuple[str, ...]  # words, of the flag
    state: StudyState
    not_analysed: tuple[NotAnalysed, ...]  # each code once
    received_at: datetime  # first film
    last_received_at: datetime
    decided_at: datetime | None
    revision: int  # 0: nothing decided yet
    withdrawn: Withdrawal | None  # the latest revision took the flag back
    patient_name: str  # PN as sent, components separated by ^
    patient_id: str
    accession_number: str
    study_description: str
    modality: str
    films: Mapping[JobState, int]
    deliveries: tuple[DeliverySummary, ...]
    opened_at: datetime | None  # somebody looked at it, first
    claimed_by: str  # empty: nobody
    claimed_at: datetime | None

    @property
    def ordered(self) -> str:
        """For a person: "ordered STAT"; empty where the order says nothing of haste."""
        return f"ordered {self.order_urgency.name}" if self.order_urgency > Urgency.ROUTINE else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorklistCounts:
    """Open studies by urgency, and films that wait, are being read, or failed."""

    studies: Mapping[Urgency, int]
    films: Mapping[JobState, int]


class Worklist:
    """What there is to see."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(
        self, limit: int, offset: int = 0, *, overdue_since: datetime = _NEVER, wanted: Filter | None = None
    ) -> list[WorklistRow]:
        """Open studies in reading order: the most urgent first, of equals the one that waits longest.

        What came before `overdue_since` goes before all but STAT.
        """
        page = _PAGE.where(*wanted.conditions()) if wanted else _PAGE
        values = {"limit": limit, "offset": offset, "overdue_since": overdue_since}

        def work(connection: Connection) -> list[WorklistRow]:
            studies = connection.execute(page, values).all()
            ids = {"ids": [study.id for study in studies]}
            films: dict[int, list[Any]] = defaultdict(list)
            for group in connection.execute(_FILMS, ids):
                films[group.study_id].append(group)
            deliveries: dict[int, dict[str, DeliverySummary]] = defaultdict(dict)
            for row in connection.execute(_DELIVERIES, ids):
                deliveries[row.study_id][row.destination] = DeliverySummary(
                    destination=row.destination,
                    revision=row.revision,
                    state=OutboxState(row.state),
                    attempts=row.attempts,
                    last_error=row.last_error,
                    sent_at=row.sent_at,
                )
            return [_row(study, films[study.id], tuple(deliveries[study.id].values())) for study in studies]

        return self._database.read(work)

    def counts(self) -> WorklistCounts:
        """The numbers above the list."""

        def work(connection: Connection) -> WorklistCounts:
            studies = {Urgency(urgency): count for urgency, count in connection.execute(_BY_URGENCY)}
            films = {JobState(state): count for state, count in connection.execute(_BY_STATE)}
            waiting = (JobState.SPOOLED, JobState.READING, JobState.FAILED)
            return WorklistCounts(
                studies={urgency: studies.get(urgency, 0) for urgency in sorted(Urgency, reverse=True)},
                films={state: films.get(state, 0) for state in waiting},
            )

        return self._database.read(work)

    def change_token(self) -> str:
        """A value that differs from an earlier one whenever the list may have changed, or who was turned away, or what
        holds for all of it: flags are paused, a destination is down."""

        def work(connection: Connection) -> str:
            parts = [part for asked in (_TOKEN, _TURNED_AWAY, _NOTICED) for part in connection.execute(asked).one()]
            return ".".join(str(part or 0) for part in parts)

        return self._database.read(work)

    def results(self, study_uid: str) -> dict[str, Any] | None:
        """The whole story of a study, fit for JSON; None when it is not known."""

        def work(connection: Connection) -> dict[str, Any] | None:
            study = connection.execute(select(Study).where(Study.study_uid == study_uid)).one_or_none()
            if study is None:
                return None
            jobs = connection.execute(select(Job).where(Job.study_id == study.id).order_by(Job.id)).all()
            predictions = connection.execute(
                select(PredictionRow)
                .join(Job, Job.id == PredictionRow.job_id)
                .where(Job.study_id == study.id)
                .order_by(PredictionRow.job_id, PredictionRow.reading)
            ).all()
            revisions = connection.execute(
                select(Revision).where(Revision.study_id == study.id).order_by(Revision.revision)
            ).all()
            deliveries = connection.execute(
                select(OutboxRow).where(OutboxRow.study_id == study.id).order_by(OutboxRow.destination, OutboxRow.id)
            ).all()
            readings: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for prediction in predictions:
                readings[prediction.job_id].append(_plain(prediction, without=("job_id",)))
            return {
                **_plain(study, without=("id", "digest", "changes", "accession_number", "patient_id")),
                "films": [{**_plain(job, without=("id", "study_id")), "predictions": readings[job.id]} for job in jobs],
                "revisions": [_plain(revision, without=("id", "study_id")) for revision in revisions],
                "deliveries": [_plain(row, without=("id", "study_id", "revision_id")) for row in deliveries],
            }

        return self._database.read(work)


def _row(study: Any, films: list[Any], deliveries: tuple[DeliverySummary, ...]) -> WorklistRow:
    counts: dict[JobState, int] = {}
    for row in films:
        state = JobState(row.state)
        counts[state] = counts.get(state, 0) + row.films
    context = study.context
    return WorklistRow(
        study_uid=study.study_uid,
        place=study.place,
        urgency=Urgency(study.rank),
        overdue=study.place == _OVERDUE,
        order_urgency=Urgency(study.order_urgency),
        reasons=tuple(reason["words"] for reason in study.reasons),
        state=StudyState(study.state),
        not_analysed=tuple(dict.fromkeys(NotAnalysed(r.not_analysed) for r in films if r.not_analysed is not None)),
        received_at=study.received_at,
        last_received_at=study.last_received_at,
        decided_at=study.decided_at,
        revision=study.revision,
        withdrawn=None if study.withdrawn is None else Withdrawal(study.withdrawn),
        patient_name=context["patient_name"],
        patient_id=context["patient_id"],
        accession_number=context["accession_number"],
        study_description=context["study_description"],
        modality=context["modality"],
        films=counts,
        deliveries=deliveries,
        opened_at=study.opened_at,
        claimed_by=study.claimed_by or "",
        claimed_at=study.claimed_at,
    )


def _plain(row: Any, without: tuple[str, ...]) -> dict[str, Any]:
    """A row as JSON has it: times in ISO 8601, urgencies by name."""
    plain: dict[str, Any] = {}
    for key, value in row._mapping.items():
        if key in without:
            continue
        if isinstance(value, datetime):
            plain[key] = value.isoformat()
        elif key in ("urgency", "order_urgency", "rank"):
            plain[key] = Urgency(value).name
        else:
            plain[key] = value
    return plain
