"""What is told of a study: its revisions, and who hears of each. Callers hold the lock on the study."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Text, bindparam, case, func, insert, select, update

from schemas.decision import Reason, Urgency
from schemas.flag import FilmResult, Withdrawal
from schemas.identity import InstanceRef
from schemas.lifecycle import OutboxState, StudyState
from schemas.not_analysed import NotAnalysed
from schemas.outcome import ModelRef, News, Route
from schemas.tables import Job, OutboxRow, PredictionRow, Revision, Study
from worker.record.overtaken import heard, overtake
from worker.record.rows import higher, word
from worker.record.shapes import digest, film_to_json, findings_from_json, reason_to_json, reasons_from_json

STUDY: Final = select(
    Study.id,
    Study.study_uid,
    Study.context,
    Study.urgency,
    Study.reasons,
    Study.revision,
    Study.digest,
    Study.withdrawn,
    Study.withdrawn_at,
    Study.reported_at,
    Study.order_urgency,
).with_for_update()
_FILMS: Final = (
    select(
        Job.sop_uid,
        Job.series_uid,
        Job.sop_class,
        Job.transfer_syntax,
        Job.not_analysed,
        Job.called_ae,
        Job.received_at,
        PredictionRow.binary,
        PredictionRow.findings,
        PredictionRow.reasons,
        PredictionRow.remarks,
        PredictionRow.concluded_at,
    )
    .join(PredictionRow, (PredictionRow.job_id == Job.id) & (PredictionRow.reading == Job.reading), isouter=True)
    .where(Job.study_id == bindparam("study_id"), (Job.reading > 0) | Job.not_analysed.is_not(None))
    .order_by(Job.id)
)
_RISES: Final = Study.urgency < bindparam("new_urgency")
_REVISED: Final = (
    update(Study)
    .where(Study.id == bindparam("study_id"))
    .values(
        state=func.coalesce(bindparam("new_state", type_=Text), Study.state),
        urgency=bindparam("new_urgency"),
        rank=higher(Study.order_urgency, bindparam("new_urgency")),
        reasons=bindparam("new_reasons"),
        revision=bindparam("new_revision"),
        digest=bindparam("new_digest"),
        decided_at=bindparam("new_decided_at"),
        withdrawn=bindparam("new_withdrawn"),
        # What raises the study came after whoever opened or read it: nobody has seen it.
        **{name: case((_RISES, None), else_=getattr(Study, name)) for name in ("opened_at", "read_by", "read_at")},
        changes=Study.changes + 1,
    )
)
_REVISION: Final = insert(Revision).returning(Revision.id)
_OUTBOX: Final = insert(OutboxRow)
# Locked: a courier that claims a row at this moment has it, and is among the told, or comes after us.
_TOLD: Final = (
    select(OutboxRow.destination, OutboxRow.state, heard(OutboxRow).label("heard"))
    .where(OutboxRow.study_id == bindparam("study_id"))
    .with_for_update()
)
# A study's earlier flag does not hold up its later one behind what is less urgent than this.
_HURRY: Final = (
    update(OutboxRow)
    .where(
        OutboxRow.study_id == bindparam("of_study"),
        OutboxRow.state == word(OutboxState.PENDING),
        OutboxRow.urgency < bindparam("new_urgency"),
    )
    .values(urgency=bindparam("new_urgency"))
)


def films_of(connection: Connection, study: Any) -> tuple[list[FilmResult], list[FilmResult], frozenset[str]]:
    """Each instance by its latest version that has a result, the readings of its earlier versions, and the AE titles
    that the films came in under. What was read before the flag was withdrawn gives no reason any more, nor does what
    was received before the study was reported, whenever it is read."""
    latest: dict[str, FilmResult] = {}
    earlier: list[FilmResult] = []
    called = set()
    for row in connection.execute(_FILMS, {"study_id": study.id}):
        called.add(row.called_ae)
        if row.not_analysed is not None:
            film = FilmResult(instance=instance_of(row, study.study_uid), not_analysed=NotAnalysed(row.not_analysed))
        else:
            silenced = (study.withdrawn_at is not None and row.concluded_at <= study.withdrawn_at) or (
                study.reported_at is not None and row.received_at <= study.reported_at
            )
            film = FilmResult(
                instance=instance_of(row, study.study_uid),
                binary=row.binary,
                findings=findings_from_json(row.findings),
                reasons=() if silenced else reasons_from_json(row.reasons),
                remarks=tuple(row.remarks),
            )
        before = latest.get(row.sop_uid)
        if before is not None and before.not_analysed is None:
            earlier.append(before)
        latest[row.sop_uid] = film
    return list(latest.values()), earlier, frozenset(called)


def instance_of(row: Any, study_uid: str) -> InstanceRef:
    """The instance that a job's row is of."""
    return InstanceRef(
        study_uid=study_uid,
        series_uid=row.series_uid,
        sop_uid=row.sop_uid,
        sop_class=row.sop_class,
        transfer_syntax=row.transfer_syntax,
    )


def revise(
    connection: Connection,
    study: Any,
    *,
    urgency: Urgency,
    reasons: Sequence[Reason],
    films: Sequence[FilmResult],
    called_ae: frozenset[str],
    model: ModelRef,
    route: Route,
    now: datetime,
    state: StudyState | None = None,
    withdrawn: Withdrawal | None = None,
    anew: bool = False,
) -> int | None:
    """Write the study's next revision and queue it for whoever is to hear of it; None where there is nothing new.

    `state` is where the study stands from now on; None: where it stood. `anew`: what is told is as it was, but of whom
    it is told is not.
    """
    content = digest(model, urgency, reasons, films)
    if content == study.digest and withdrawn is None and not anew:
        return None
    number = int(study.revision) + 1
    revision = {
        "revision": number,
        "urgency": int(urgency),
        "digest": content,
        "decided_at": now,
        "withdrawn": withdrawn,
    }
    snapshot = {
        "reasons": [reason_to_json(r) for r in reasons],
        "films": [film_to_json(f) for f in films],
        "context": study.context,
        "called_ae": sorted(called_ae),
        "order_urgency": study.order_urgency,
    }
    identified = {"model_id": model.id, "model_name": model.name, "model_version": model.version}
    revision_id = connection.execute(
        _REVISION, {**revision, **identified, "study_id": study.id, "snapshot": snapshot}
    ).scalar_one()
    news = News(
        urgency=urgency,
        findings=frozenset(reason.finding for reason in reasons),
        called_ae=called_ae,
        modality=study.context["modality"],
        decided_at=now,
        withdrawn=withdrawn,
    )
    _tell(connection, study, revision_id, number, news, route)
    values = {f"new_{k}": v for k, v in revision.items()} | {"new_reasons": snapshot["reasons"], "new_state": state}
    connection.execute(_REVISED, {"study_id": study.id, **values})
    if number > 1:
        overtake(connection, [study.id])
    return number


def _tell(connection: Connection, study: Any, revision_id: int, revision: int, news: News, route: Route) -> None:
    """One outbox row for each destination that is to hear of this revision."""
    rows = connection.execute(_TOLD, {"study_id": study.id}).all() if revision > 1 else []
    told = {row.destination for row in rows if row.heard}
    if news.withdrawn is None:  # who has not even been tried goes on waiting; of a withdrawal he need not hear
        told |= {row.destination for row in rows if row.state in {OutboxState.PENDING, OutboxState.SENDING}}
    names = route(news, told)
    if names:
        row = {
            "revision_id": revision_id,
            "study_id": study.id,
            "revision": revision,
            "urgency": int(news.urgency),
            "state": OutboxState.PENDING.value,
            "next_attempt_at": news.decided_at,
            "created_at": news.decided_at,
        }
        connection.execute(_OUTBOX, [{**row, "destination": name} for name in names])
    if rows and news.urgency:
        connection.execute(_HURRY, {"of_study": study.id, "new_urgency": int(news.urgency)})
