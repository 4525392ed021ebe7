"""The calendar of training runs: what is asked for again and again, and when next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from schemas.errors import ConfigurationError
from schemas.tables import RetrainingRow, TrainingRunRow
from schemas.training_run import FINISHED, NAME, Retraining, RunState
from worker.record.database import Database
from worker.record.rows import one_of
from worker.record.shapes import clean
from worker.record.training_runs import ask, proper

LONGEST_NAME: Final = 50  # characters: a date is put behind it
BY: Final = "the calendar"  # who asks for its runs

_ALL: Final = select(RetrainingRow).order_by(RetrainingRow.next_at, RetrainingRow.id)
# Whoever has locked a row asks for its run; to others it is not due any more when they come to it.
_DUE: Final = (
    select(RetrainingRow)
    .where(RetrainingRow.next_at <= bindparam("now"))
    .order_by(RetrainingRow.id)
    .with_for_update(skip_locked=True)
)
_UNFINISHED: Final = select(TrainingRunRow.id).where(
    TrainingRunRow.id == bindparam("run"),
    one_of(TrainingRunRow.state, [state for state in RunState if state not in FINISHED]),
)


class Retrainings:
    """The calendar."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        *,
        name: str,
        cron: str,
        data: str,
        made_by: str,
        now: datetime,
        next_at: datetime,
        preset: str = "",
        description: str = "",
    ) -> Retraining:
        """A new entry.

        Parameters
        ----------
        name:
            Of its runs, which have their date behind it.
        preset, description, data:
            As of `TrainingRuns.request`.
        next_at:
            When `cron` comes next.

        Raises
        ------
        ConfigurationError
            Words that no run can be asked for with.
        """
        if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
            raise ConfigurationError(
                f"name {name[:80]!r}: letters, digits, . _ - and no more than {LONGEST_NAME} of them"
            )
        proper(name, data, preset, description)
        values: dict[str, Any] = {
            "name": name,
            "cron": cron,
            "preset": preset,
            "description": clean(description),
            "data": clean(data),
            "made_by": clean(made_by)[:200],
            "made_at": now,
            "next_at": next_at,
            "last_run": None,
        }
        statement = insert(RetrainingRow).values(values).returning(RetrainingRow.id)
        number = self._database.write(lambda connection: int(connection.execute(statement).scalar_one()))
        return Retraining(id=number, **values)

    def remove(self, entry: int) -> Retraining | None:
        """Take it off the calendar; its runs stay. None: there was no such entry."""
        which = select(RetrainingRow).where(RetrainingRow.id == entry).with_for_update()

        def work(connection: Connection) -> Retraining | None:
            row = connection.execute(which).one_or_none()
            if row is None:
                return None
            connection.execute(delete(RetrainingRow).where(RetrainingRow.id == entry))
            return _entry(row)

        return self._database.write(work)

    def list(self) -> list[Retraining]:
        """All of them, what comes next first."""
        return self._database.read(lambda connection: [_entry(row) for row in connection.execute(_ALL)])

    def ask(self, now: datetime, next_time: Callable[[str, datetime], datetime]) -> Sequence[int]:
        """Ask for the runs that are due, and write down when each comes next; returns their numbers.

        What was missed while nobody looked is asked for once. Where the run of the last time has not finished, none is
        asked for: a queue that only grows helps nobody.

        Parameters
        ----------
        next_time:
            Cron expression and a moment → when it comes next after that.
        """

        def work(connection: Connection) -> Sequence[int]:
            asked: Sequence[int] = ()
            for row in connection.execute(_DUE, {"now": now}).all():
                values: dict[str, Any] = {"next_at": next_time(row.cron, now)}
                if row.last_run is None or connection.scalar(_UNFINISHED, {"run": row.last_run}) is None:
                    run = ask(
                        connection,
                        name=f"{row.name}-{row.next_at:%Y%m%d}",
                        preset=row.preset,
                        description=row.description,
                        data=row.data,
                        requested_by=BY,
                        now=now,
                    )
                    values["last_run"] = run
                    asked = (*asked, run)
                connection.execute(update(RetrainingRow).where(RetrainingRow.id == row.id).values(values))
            return asked

        return self._database.write(work)


def _entry(row: Any) -> Retraining:
    return Retraining(**row._mapping)
