"""Door 1: a received instance becomes a row, and only then is its sender told so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.identity import InstanceRef, Sender, StudyContext
from schemas.lifecycle import JobState, StudyState
from schemas.tables import Job, Study
from worker.ports import SpooledFile
from worker.record.database import Database
from worker.record.filing import FILED, Filed, file_under
from worker.record.reports import take_early_reports
from worker.record.rows import settle_studies, take_turns, word
from worker.record.shapes import clean, merge

_STUDY: Final = select(Study.id, Study.context).where(Study.study_uid == bindparam("study_uid")).with_for_update()
_NEW_STUDY: Final = insert(Study).returning(Study.id)
_VERSIONS: Final = (
    select(Job.id, Job.version, Job.digest, Job.path, Job.state)
    .where(Job.study_id == bindparam("study_id"), Job.sop_uid == bindparam("sop_uid"))
    .order_by(Job.version)
)
_OUTDATE: Final = (
    update(Job)
    .where(Job.study_id == bindparam("of_study"), Job.sop_uid == bindparam("of_instance"))
    .values(current=False)
)
_NEW_JOB: Final = insert(Job).returning(Job.id)
_ARRIVED_BESIDE: Final = (
    update(Study)
    .where(Study.id == bindparam("study_id"))
    .values(
        **FILED,
        state=word(StudyState.RECEIVING),
        last_received_at=bindparam("b_received_at"),
        closed=False,
        changes=Study.changes + 1,
    )
)
# A film that came after the report, or after somebody read the study, is news, and may raise it again.
_ARRIVED: Final = _ARRIVED_BESIDE.values(
    withdrawn=case(
        (
            (Study.withdrawn == word(Withdrawal.REPORTED))
            & func.coalesce(Study.reported_at < bindparam("b_received_at"), True),
            None,
        ),
        else_=Study.withdrawn,
    ),
    read_by=None,
    read_at=None,
)
# What readers and their workstations add to a study: presentation states, reports, encapsulated documents.
_BESIDE: Final = ("1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.")
_AGAIN: Final = (
    update(Study).where(Study.id == bindparam("study_id")).values(last_received_at=bindparam("b_received_at"))
)
_RESENT: Final = update(Job).where(Job.id == bindparam("job_id")).values(path=bindparam("b_path"))
_REOPEN: Final = update(Study).where(Study.id == bindparam("study_id")).values(closed=False, changes=Study.changes + 1)
_CHANCE: Final = (
    update(Job)
    .where(Job.id == bindparam("job_id"))
    .values(
        state=word(JobState.SPOOLED),
        attempts=0,
        not_before=bindparam("b_received_at"),
        not_analysed=None,
        detail="",
        concluded_at=None,
    )
)
_PATH_OF: Final = (
    select(Job.path)
    .join(Study, Study.id == Job.study_id)
    .where(Study.study_uid == bindparam("study_uid"), Job.sop_uid == bindparam("sop_uid"), Job.current)
)
_PATHS: Final = select(Job.path).where(Job.path.is_not(None))


def _is_news(sop_class: str) -> bool:
    """Whether an instance may be a film that nobody has seen."""
    return not sop_class.startswith(_BESIDE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """What the instance was to us: new, the same bytes again, or a further version of a known one."""

    outcome: Literal["new", "same", "version"]
    job_id: int
    version: int  # from 1


class Instances:
    """What was received."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def receive(
        self,
        instance: InstanceRef,
        file: SpooledFile,
        sender: Sender,
        context: StudyContext,
        order_urgency: Urgency,
        received_at: datetime,
    ) -> Received:
        """Record the instance as waiting to be read; when this returns, the row is on the disk.

        The same bytes again change nothing, except that a film that failed gets a fresh chance, and that a study
        whose bytes retention had let go is on the worklist again, with the results that it had. Other bytes under
        the same SOP Instance UID are a further version, and the one that counts from now on. Versions are counted
        within the study: a modality that gives the same UID to films of two studies has both read.

        Raises
        ------
        RecordError
            The row could not be committed.
        """

        def work(connection: Connection) -> Received:
            take_turns(connection, alone=False)
            study = connection.execute(_STUDY, {"study_uid": instance.study_uid}).one_or_none()
            filed = file_under(connection, merge({} if study is None else study.context, context))
            study_id = self._add(connection, instance.study_uid, filed, received_at) if study is None else study.id
            versions = connection.execute(_VERSIONS, {"study_id": study_id, "sop_uid": instance.sop_uid}).all()
            for job in versions:
                if job.digest == file.sha256:
                    return self._same(connection, study_id, job, file, received_at)
            if versions:
                connection.execute(_OUTDATE, {"of_study": study_id, "of_instance": instance.sop_uid})
            version = versions[-1].version + 1 if versions else 1
            job_id = connection.execute(
                _NEW_JOB,
                {
                    "study_id": study_id,
                    "sop_uid": instance.sop_uid,
                    "version": version,
                    "current": True,
                    "digest": file.sha256,
                    "path": file.path,
                    "size": file.size,
                    "series_uid": instance.series_uid,
                    "sop_class": instance.sop_class,
                    "transfer_syntax": instance.transfer_syntax,
                    "calling_ae": clean(sender.calling_ae),
                    "called_ae": clean(sender.called_ae),
                    "address": clean(sender.address),
                    "order_urgency": max(int(order_urgency), int(filed.order_urgency)),
                    "state": JobState.SPOOLED.value,
                    "not_before": received_at,
                    "received_at": received_at,
                },
            ).scalar_one()
            if study is None:
                take_early_reports(connection, study_id, instance.study_uid, filed.context, received_at)
            else:
                arrived = _ARRIVED if _is_news(instance.sop_class) else _ARRIVED_BESIDE
                connection.execute(arrived, {"study_id": study_id, "b_received_at": received_at, **filed.bound})
            return Received(outcome="version" if versions else "new", job_id=job_id, version=version)

        return self._database.write(work)

    def _add(self, connection: Connection, study_uid: str, filed: Filed, received_at: datetime) -> int:
        """Id of the new study."""
        # Another process may do the same at this moment: one of the two meets the unique key and starts again.
        values = {
            **filed.columns,
            "study_uid": study_uid,
            "rank": int(filed.order_urgency),
            "state": StudyState.RECEIVING.value,
            "reasons": [],
            "received_at": received_at,
            "last_received_at": received_at,
        }
        return int(connection.execute(_NEW_STUDY, values).scalar_one())

    def _same(
        self, connection: Connection, study_id: int, job: Any, file: SpooledFile, received_at: datetime
    ) -> Received:
        connection.execute(_AGAIN, {"study_id": study_id, "b_received_at": received_at})
        if job.path is None:
            connection.execute(_RESENT, {"job_id": job.id, "b_path": file.path})
            connection.execute(_REOPEN, {"study_id": study_id})
        if job.state == JobState.FAILED:
            connection.execute(_CHANCE, {"job_id": job.id, "b_received_at": received_at})
            settle_studies(connection, [study_id])
        return Received(outcome="same", job_id=job.id, version=job.version)

    def path_of(self, study_uid: str, sop_uid: str) -> str | None:
        """The spool's file of the film's current version; None when the bytes were let go, or it was never here."""
        uids = {"study_uid": study_uid, "sop_uid": sop_uid}
        return self._database.read(lambda connection: connection.scalar(_PATH_OF, uids))

    def paths(self) -> set[str]:
        """Files of the spool that a row points to."""
        return self._database.read(lambda connection: {str(p) for p in connection.scalars(_PATHS)})
