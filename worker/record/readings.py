"""What readers do with the studies of the list: claim, read, say whether the flag was right, and undo.

Whoever reads a study takes it off the list at once; for a short while it can be undone, then its flag is taken back at
those who keep tasks for it, as if a signed report had come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.findings import Label
from schemas.flag import Withdrawal
from schemas.lifecycle import StudyState
from schemas.outcome import Route
from schemas.readings import Feedback, Judgement
from schemas.tables import FeedbackRow, Revision, Study
from worker.record.database import Database
from worker.record.rows import NOT_REPORTED, by_study, word
from worker.record.shapes import clean
from worker.record.studies import withdraw_locked

_STUDY: Final = (
    select(Study.id, Study.claimed_by, Study.claimed_at, Study.read_by, Study.read_at, Study.withdrawn, Study.revision)
    .where(Study.study_uid == bindparam("uid"))
    .with_for_update()
)
_CHANGE: Final = update(Study).where(Study.id == bindparam("study")).values(changes=Study.changes + 1)
_MODEL: Final = select(Revision.model_id).where(
    Revision.study_id == bindparam("study"), Revision.revision == bindparam("revision")
)
_UNDO_FEEDBACK: Final = (
    update(FeedbackRow)
    .where(FeedbackRow.study_id == bindparam("study"), FeedbackRow.undone_at.is_(None))
    .values(undone_at=bindparam("now"))
)
_UNDO_OWN_FEEDBACK: Final = _UNDO_FEEDBACK.where(FeedbackRow.reader == bindparam("by"))
_OPENED: Final = (
    update(Study)
    .where(Study.study_uid == bindparam("uid"), Study.opened_at.is_(None))
    .values(opened_at=bindparam("now"), changes=Study.changes + 1)
)
_LABELS: Final = (
    select(FeedbackRow, Study.study_uid)
    .join(Study, Study.id == FeedbackRow.study_id)
    .where(FeedbackRow.undone_at.is_(None))
    .order_by(FeedbackRow.id)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What became of a wish: done, or why not, in words for the reader."""

    done: bool
    words: str = ""


CLAIMED_FOR: Final = timedelta(hours=2)  # whoever went home holds nobody up
UNKNOWN: Final = Turn(done=False, words="this study is not known here")


class Readings:
    """What readers do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def opened(self, study_uid: str, now: datetime) -> None:
        """Somebody looks at it; only the first time counts."""
        values = {"uid": clean(study_uid), "now": now}
        known = select(Study.opened_at).where(Study.study_uid == values["uid"])
        if self._database.read(lambda c: c.execute(known).one_or_none()) == (None,):
            self._database.write(lambda c: c.execute(_OPENED, values))

    def claim(self, study_uid: str, reader: str, now: datetime, *, take_over: bool = False) -> Turn:
        """The study is this reader's. Another's is taken only by `take_over`."""

        def work(connection: Connection, study: Any) -> Turn:
            if study.read_at is not None:
                return Turn(done=False, words=f"{study.read_by} has read it already")
            if _is_anothers(study, reader, now) and not take_over:
                return Turn(done=False, words=f"{study.claimed_by} has claimed it")
            if study.claimed_by != reader:
                _set(connection, study, claimed_by=reader, claimed_at=now)
            return Turn(done=True)

        return self._with(study_uid, work)

    def release(self, study_uid: str, reader: str) -> Turn:
        """The study is anybody's again."""

        def work(connection: Connection, study: Any) -> Turn:
            if study.claimed_by != reader:
                return Turn(done=False, words="it is not claimed by you")
            _set(connection, study, claimed_by=None, claimed_at=None)
            return Turn(done=True)

        return self._with(study_uid, work)

    def read(
        self,
        study_uid: str,
        reader: str,
        now: datetime,
        *,
        judgement: Judgement | None = None,
        findings: Sequence[Label] = (),
        revision: int | None = None,
    ) -> Turn:
        """The reader has read it: it leaves the list. `judgement`: whether the flag, or its absence, was right.

        `revision` of the flag that the reader saw, where that is known: what came since is not read with it.
        """

        def work(connection: Connection, study: Any) -> Turn:
            if revision is not None and revision != study.revision:
                return Turn(done=False, words="something new was said of it since you looked: look again")
            if study.read_at is not None and study.read_by != reader:
                return Turn(done=False, words=f"{study.read_by} has read it already")
            if _is_anothers(study, reader, now):
                return Turn(done=False, words=f"{study.claimed_by} has claimed it")
            if study.read_at is None:
                _set(connection, study, read_by=reader, read_at=now, claimed_by=None, claimed_at=None)
            if judgement is not None:
                _judge(connection, study, reader, judgement, findings, now)
            return Turn(done=True)

        return self._with(study_uid, work)

    def undo(self, study_uid: str, reader: str, now: datetime) -> Turn:
        """It was not read after all, and the reader said nothing of its flag; it is the reader's again."""

        def work(connection: Connection, study: Any) -> Turn:
            if study.read_at is None or study.read_by != reader:
                return Turn(done=False, words="there is nothing of yours to undo")
            if study.withdrawn == Withdrawal.REPORTED:
                return Turn(done=False, words="it is too late: others were told that it has been read")
            _set(connection, study, read_by=None, read_at=None, claimed_by=reader, claimed_at=now)
            connection.execute(_UNDO_OWN_FEEDBACK, {"study": study.id, "now": now, "by": reader})
            return Turn(done=True)

        return self._with(study_uid, work)

    def judge(
        self, study_uid: str, reader: str, judgement: Judgement, findings: Sequence[Label], now: datetime
    ) -> Turn:
        """A word on the flag alone, also later; it takes the place of the one before."""

        def work(connection: Connection, study: Any) -> Turn:
            _judge(connection, study, reader, judgement, findings, now)
            _set(connection, study)
            return Turn(done=True)

        return self._with(study_uid, work)

    def settle(self, route: Route, now: datetime, after: timedelta) -> int:
        """What was read `after` ago, and not undone, is over for everybody; returns how many studies."""
        # Not while a film of it waits to be read: what that says is seen first.
        unread = Study.state == word(StudyState.RECEIVING)
        found = select(Study.id).where(*NOT_REPORTED, Study.read_at <= now - after, ~unread)

        def work(connection: Connection, studies: list[int]) -> int:
            # Undone in this moment: the lock was waited for.
            over = connection.scalars(found.where(Study.id.in_(studies))).all()
            withdraw_locked(connection, list(over), Withdrawal.REPORTED, route, now)
            return len(over)

        return by_study(self._database, found, work)

    def feedback(self) -> list[Feedback]:
        """Every word that stands, the oldest first: labels for retraining."""
        return self._database.read(
            lambda c: [
                Feedback(
                    study_uid=row.study_uid,
                    reader=row.reader,
                    judgement=Judgement(row.judgement),
                    findings=tuple(Label(finding) for finding in row.findings),
                    at=row.at,
                )
                for row in c.execute(_LABELS)
            ]
        )

    def _with(self, study_uid: str, work: Any) -> Turn:
        def locked(connection: Connection) -> Turn:
            study = connection.execute(_STUDY, {"uid": clean(study_uid)}).one_or_none()
            return UNKNOWN if study is None else work(connection, study)

        return self._database.write(locked)


def _is_anothers(study: Any, reader: str, now: datetime) -> bool:
    """Whether somebody else has claimed it, not too long ago."""
    return study.claimed_by not in {None, reader} and now - study.claimed_at < CLAIMED_FOR


def _set(connection: Connection, study: Any, **values: Any) -> None:
    connection.execute(_CHANGE.values(**values), {"study": study.id})


def _judge(
    connection: Connection, study: Any, reader: str, judgement: Judgement, findings: Sequence[Label], now: datetime
) -> None:
    connection.execute(_UNDO_FEEDBACK, {"study": study.id, "now": now})
    model = connection.scalar(_MODEL, {"study": study.id, "revision": study.revision})
    connection.execute(
        insert(FeedbackRow).values(
            study_id=study.id,
            reader=reader,
            judgement=judgement.value,
            findings=[finding.value for finding in findings],
            revision=study.revision,
            model_id=model or "",
            at=now,
        )
    )
