"""What several doors to the record share: the lock on a study, and its state.

Order of locks, so that no two writers wait for each other: studies by id, then rows of the other tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    select,
    update,
)

from schemas.flag import Withdrawal
from schemas.lifecycle import StudyState
from schemas.tables import Job, Study
from worker.record.database import Database


def word(state: StrEnum) -> ColumnElement[str]:
    """A state written into the statement itself, so that the planner sees it and chooses its index well."""
    return literal_column(f"'{state.value}'", Text)


def one_of(column: Any, states: Iterable[StrEnum]) -> ColumnElement[bool]:
    """Whether `column` is one of `states`."""
    return column.in_([word(state) for state in states])  # type: ignore[no-any-return]


def higher(one: Any, other: Any) -> ColumnElement[int]:
    """The greater of two numbers; no function of that name is to be had in both databases."""
    return case((one > other, one), else_=other)


def lapsed(table: Any, now: datetime, dead: Iterable[str]) -> ColumnElement[bool]:
    """Whether the lease is over: by its time, or because its holder is known to be dead."""
    return (table.lease_until < now) | table.lease_owner.in_(list(dead))  # type: ignore[no-any-return]


NOT_REPORTED: Final = (Study.closed.is_(False), Study.withdrawn.is_distinct_from(word(Withdrawal.REPORTED)))
# What a reading list shows: the study's films are here, and nobody has read or reported it.
ON_LIST: Final = (*NOT_REPORTED, Study.read_at.is_(None))

_TURNS: Final = 0x68696C76  # key of PostgreSQL's advisory lock

CHUNK: Final = 200  # studies in one transaction of a duty: short enough that receiving hardly waits for it

_LOCK: Final = (
    select(Study.id).where(Study.id.in_(bindparam("ids", expanding=True))).order_by(Study.id).with_for_update()
)
# RECEIVING while a film waits or is being read, else READ; FINAL only ever by a quiet period.
_SETTLE: Final = (
    update(Study)
    .where(Study.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=case(
            (exists().where(Job.study_id == Study.id, Job.concluded_at.is_(None)), word(StudyState.RECEIVING)),
            else_=word(StudyState.READ),
        ),
        changes=Study.changes + 1,
    )
)
_TOUCH: Final = update(Study).where(Study.id.in_(bindparam("ids", expanding=True))).values(changes=Study.changes + 1)


def take_turns(connection: Connection, *, alone: bool) -> None:
    """Films come in side by side; what the hospital says of their patients and orders comes in alone.

    Else a film and the message about it that arrive in the same moment would each miss the other. Before any other
    lock. SQLite has one writer in any case.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(_TURNS)))


def lock_studies(connection: Connection, ids: Iterable[int]) -> None:
    """Nobody else changes these studies until the transaction ends."""
    connection.execute(_LOCK, {"ids": sorted(set(ids))}).all()


def settle_studies(connection: Connection, ids: Iterable[int]) -> None:
    """Set the state of locked studies by their jobs."""
    connection.execute(_SETTLE, {"ids": sorted(set(ids))})


def touch_studies(connection: Connection, ids: Iterable[int]) -> None:
    """Say that the worklist may show something new of these studies."""
    connection.execute(_TOUCH, {"ids": sorted(set(ids))})


def by_study(database: Database, found: Select[int], work: Callable[[Connection, list[int]], int]) -> int:
    """Run `work` on the studies that `found` selects, some at a time, each time with these locked; the sum."""
    studies = sorted(set(database.read(lambda connection: connection.scalars(found).all())))

    def locked(connection: Connection, chunk: list[int]) -> int:
        lock_studies(connection, chunk)
        return work(connection, chunk)

    chunks = [studies[start : start + CHUNK] for start in range(0, len(studies), CHUNK)]
    return sum(database.write(partial(locked, chunk=chunk)) for chunk in chunks)
