"""What need not be told any more, because something later stands in its place.

A withdrawal is never overtaken: whoever may have the flag hears that it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, or_, update
from sqlalchemy.orm import aliased

from schemas.flag import Withdrawal
from schemas.lifecycle import OutboxState
from schemas.tables import OutboxRow, Revision, Study
from worker.record.rows import word

_other: Final = aliased(OutboxRow)


def heard(row: Any) -> ColumnElement[bool]:
    """Whether the destination may have this flag: it took it, or a try of it was not a refusal."""
    unproven = or_(row.attempts > 1, and_(row.attempts == 1, row.state != word(OutboxState.REFUSED)))
    return or_(row.sent_at.is_not(None), unproven)


_UNHEARD: Final = and_(OutboxRow.attempts == 0, OutboxRow.sent_at.is_(None))
_SAME_LINE: Final = (_other.study_id == OutboxRow.study_id, _other.destination == OutboxRow.destination)
_IS_WITHDRAWAL: Final = exists().where(Revision.id == OutboxRow.revision_id, Revision.withdrawn.is_not(None))
_IS_WITHDRAWN: Final = exists().where(Study.id == OutboxRow.study_id, Study.withdrawn.is_not(None))
# Also where a film that came later has put the study back on the list since.
_IS_REPORTED: Final = exists().where(
    Study.id == OutboxRow.study_id,
    or_(Study.withdrawn == word(Withdrawal.REPORTED), Study.reported_at >= OutboxRow.created_at),
)
_HAS_SUCCESSOR: Final = exists().where(
    *_SAME_LINE, _other.revision > OutboxRow.revision, _other.state != word(OutboxState.SUPERSEDED)
)
_WAS_HEARD_BEFORE: Final = exists().where(*_SAME_LINE, _other.revision < OutboxRow.revision, heard(_other))
# What was tried may have arrived unproven: it is sent again, then its successor. But nobody is told to read what has
# been reported, however often that was tried before.
_OVERTAKE: Final = (
    update(OutboxRow)
    .where(
        OutboxRow.study_id.in_(bindparam("ids", expanding=True)),
        OutboxRow.state == word(OutboxState.PENDING),
        or_(
            and_(~_IS_WITHDRAWAL, _IS_REPORTED),
            and_(~_IS_WITHDRAWAL, _UNHEARD, or_(_IS_WITHDRAWN, _HAS_SUCCESSOR)),
            and_(_IS_WITHDRAWAL, _UNHEARD, ~_WAS_HEARD_BEFORE),
        ),
    )
    .values(state=word(OutboxState.SUPERSEDED))
    .execution_options(synchronize_session=False)
)


def overtake(connection: Connection, study_ids: Iterable[int]) -> None:
    """Set aside what waits of these studies and need not be told any more. Callers hold the lock on the studies."""
    ids = sorted(set(study_ids))
    if ids:
        connection.execute(_OVERTAKE, {"ids": ids})
