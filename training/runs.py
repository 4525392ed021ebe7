"""Training runs as trainers see them: claimed, kept alive, told of, concluded. The database is the queue.

The worker asks for runs and looks at them (`worker.record.training_runs`); nothing of it is imported here. SQLite for
one host; on PostgreSQL any number of trainers share one queue, and none of them takes what another has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, bindparam, event, null, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from schemas.errors import ConfigurationError, LeaseLost, RecordError
from schemas.registry import ModelState
from schemas.tables import ModelRow, TrainerRow, TrainingReportRow
from schemas.tables import TrainingRunRow as Row
from schemas.training_run import ATTEMPTS, FINISHED, Progress, RunState, TrainingRun, before, words_of

T = TypeVar("T")

BUSY_SECONDS: Final = 30.0  # how long a writer waits for writers of other processes (SQLite)
TRIES: Final = 8
FORGET: Final = timedelta(days=1)  # trainers that were not heard of for so long
# SQLSTATE: serialization failure, deadlock, lock not available
_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})

_CHANGED: Final[dict[str, Any]] = {"changes": Row.changes + 1}
_NO_LEASE: Final[dict[str, Any]] = {"lease_owner": None, "lease_until": None}
_OLDEST: Final = (
    select(Row.id)
    .where(Row.state == RunState.REQUESTED.value)
    .order_by(Row.requested_at, Row.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_CLAIM: Final = (
    update(Row)
    .where(Row.id == bindparam("run"), Row.state.in_([state.value for state in before(RunState.RUNNING)]))
    .values(
        state=RunState.RUNNING.value,
        attempts=Row.attempts + 1,
        lease_owner=bindparam("trainer"),
        lease_until=bindparam("until"),
        # A run that is resumed began when it first did.
        started_at=sa.func.coalesce(Row.started_at, bindparam("now", type_=Row.started_at.type)),
        finished_at=None,
        error="",
        **_CHANGED,
    )
)
_HELD: Final = (
    Row.id == bindparam("run"),
    Row.state == RunState.RUNNING.value,
    Row.attempts == bindparam("attempt"),
    Row.lease_owner == bindparam("trainer"),
)
_MINE: Final = update(Row).where(*_HELD)
_ASKED: Final = select(Row.cancel_asked).where(*_HELD)
_ALIVE: Final = _MINE.values(lease_until=bindparam("until"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A run that this trainer holds until its lease lapses."""

    id: int
    name: str
    preset: str  # "": described by `description`
    description: str  # TOML
    data: str
    folder: str  # "": it has none yet
    attempt: int  # from 1
    trainer: str


class Runs:
    """The queue of runs in the database at `url`, SQLAlchemy's. Thread-safe.

    Raises
    ------
    RecordError
        No such database. Nothing else is opened yet.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite and not (parsed.database and Path(parsed.database).is_file()):
                raise RecordError(f"database {parsed.database or 'in memory'}: no such file; run `hilum migrate` first")
            self._engine = _sqlite(url) if self._sqlite else sa.create_engine(url, pool_size=4, hide_parameters=True)
        except (ArgumentError, ImportError) as error:
            raise RecordError("--database: use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from error

    def check(self) -> None:
        """Reachable, and the tables are there. Raises `RecordError`, whose message names the mend."""
        if not self._run(lambda connection: sa.inspect(connection).has_table(Row.__tablename__)):
            raise RecordError("the database has no table of training runs: run `hilum migrate`")

    def claim(self, trainer: str, lease: timedelta, now: datetime) -> Claimed | None:
        """Take the run that was requested first; None when none waits. No two trainers get the same."""

        def work(connection: Connection) -> Claimed | None:
            run = connection.execute(_OLDEST).scalar_one_or_none()
            return None if run is None else _claim(connection, run, trainer, lease, now)

        return self._run(work)

    def begin(
        self,
        *,
        name: str,
        description: str,
        data: str,
        folder: str,
        requested_by: str,
        trainer: str,
        lease: timedelta,
        now: datetime,
    ) -> Claimed:
        """A row for a run that begins here and now, or goes on in the same `folder`: `hilum train` itself.

        No trainer takes it over when its process dies: it is failed then, and the same command goes on with it.

        Raises
        ------
        ConfigurationError
            Another process trains in this folder, or a trainer is about to.
        """
        known = select(Row).where(Row.folder == folder).order_by(Row.id.desc()).limit(1).with_for_update()

        def work(connection: Connection) -> Claimed:
            row = connection.execute(known).one_or_none()
            if row is not None and row.state == RunState.RUNNING and row.lease_until < now:
                connection.execute(update(Row).where(Row.id == row.id).values(state=RunState.FAILED.value, **_NO_LEASE))
            elif row is not None and RunState(row.state) not in FINISHED:
                raise ConfigurationError(f"{folder}: training run {row.id} is {row.state} there; cancel it first")
            values = {"name": name, "description": description, "data": data, "requested_by": requested_by}
            fresh = {"state": RunState.REQUESTED.value, "cancel_asked": False, "requested_at": now}
            if row is None or row.state == RunState.DONE:
                nothing = {"preset": "", "progress": Progress().to_json(), "result": null(), "error": "", "changes": 1}
                statement = sa.insert(Row).values(**values, **fresh, **nothing, folder=folder, attempts=0)
                run = int(connection.execute(statement.returning(Row.id)).scalar_one())
            else:
                run = int(row.id)
                connection.execute(update(Row).where(Row.id == run).values(**values, **fresh))
            # All its attempts at once: who else would go on with it does not have its terminal.
            last = sa.case((Row.attempts < ATTEMPTS, ATTEMPTS - 1), else_=Row.attempts)
            connection.execute(update(Row).where(Row.id == run).values(attempts=last))
            return _claim(connection, run, trainer, lease, now)

        return self._run(work)

    def live(self) -> str | None:
        """Id of the model that reads, by the worker's registry; None: nothing has read yet."""
        statement = select(ModelRow.model_id).where(ModelRow.state == ModelState.LIVE.value)
        return self._run(lambda connection: connection.execute(statement).scalar_one_or_none())

    def describe(self, run: Claimed, *, folder: str, description: str) -> None:
        """Write down where it runs and the locked description. Raises `LeaseLost`."""
        self._move(_MINE.values(folder=folder, description=description, **_CHANGED), run)

    def progress(self, run: Claimed, progress: Progress, lease: timedelta, now: datetime) -> None:
        """Say how far it is, and hold on to it for another `lease`. Raises `LeaseLost`."""
        self._move(_ALIVE.values(progress=progress.to_json(), **_CHANGED), run, until=now + lease)

    def alive(self, run: Claimed, lease: timedelta, now: datetime) -> None:
        """Hold on to it for another `lease`, with nothing new to tell. Raises `LeaseLost`."""
        self._move(_ALIVE, run, until=now + lease)

    def cancel_asked(self, run: Claimed) -> bool:
        """Whether somebody wants it to stop. Raises `LeaseLost`."""
        asked = self._run(lambda connection: connection.execute(_ASKED, _key(run)).scalar_one_or_none())
        if asked is None:
            raise LeaseLost(f"training run {run.id}")
        return bool(asked)

    def finish(self, run: Claimed, result: Mapping[str, Any], now: datetime, report: str = "") -> None:
        """It is done; `report`: its page, for whoever does not see its folder. Raises `LeaseLost`."""
        kept = sa.insert(TrainingReportRow).values(run_id=run.id, html=report.replace("\0", ""))

        def work(connection: Connection) -> None:
            values = {"state": RunState.DONE.value, "finished_at": now, "result": dict(result)}
            _move(connection, _MINE.values(**values, **_NO_LEASE, **_CHANGED), run)
            if report:
                connection.execute(kept)

        self._run(work)

    def fail(self, run: Claimed, error: str, now: datetime) -> None:
        """It failed, and why. Raises `LeaseLost`."""
        self._conclude(run, RunState.FAILED, now, error=words_of(error) or "no reason was given")

    def cancelled(self, run: Claimed, now: datetime) -> None:
        """It stopped because somebody asked for that. Raises `LeaseLost`."""
        self._conclude(run, RunState.CANCELLED, now)

    def give_back(self, run: Claimed) -> None:
        """This trainer was told to stop: the next one goes on, and the attempt does not count. Raises `LeaseLost`."""
        back = {"state": RunState.REQUESTED.value, "attempts": Row.attempts - 1}
        self._move(_MINE.values(**back, **_NO_LEASE, **_CHANGED), run)

    def rescue(self, now: datetime) -> int:
        """Settle the runs whose trainer died (lease lapsed); returns how many.

        Requested again; cancelled where that was asked; failed when `ATTEMPTS` trainers died of it.
        """
        over = (Row.state == RunState.RUNNING.value, Row.lease_until < now)
        ends = {"finished_at": now, **_NO_LEASE, **_CHANGED}
        words = "its process died; `hilum runs resume`, or the same `hilum train` command, goes on from its checkpoint"
        moves: tuple[tuple[Any, dict[str, Any]], ...] = (
            (Row.cancel_asked, {"state": RunState.CANCELLED.value, **ends}),
            (Row.attempts >= ATTEMPTS, {"state": RunState.FAILED.value, "error": words, **ends}),
            (sa.true(), {"state": RunState.REQUESTED.value, **_NO_LEASE, **_CHANGED}),
        )

        def work(connection: Connection) -> int:
            return sum(
                connection.execute(update(Row).where(*over, which).values(**values)).rowcount for which, values in moves
            )

        return self._run(work)

    def here(self, trainer: str, presets: Mapping[str, str], now: datetime) -> None:
        """Say that a trainer is there, and which presets it knows; whoever has been silent for long is forgotten."""
        gone = (TrainerRow.name == trainer) | (TrainerRow.seen_at < now - FORGET)

        def work(connection: Connection) -> None:
            connection.execute(sa.delete(TrainerRow).where(gone))
            connection.execute(sa.insert(TrainerRow).values(name=trainer, presets=dict(presets), seen_at=now))

        self._run(work)

    def left(self, trainer: str) -> None:
        """A trainer ends."""
        self._run(lambda connection: connection.execute(sa.delete(TrainerRow).where(TrainerRow.name == trainer)))

    def show(self, run: int) -> TrainingRun:
        """One run. Raises `RecordError` when it is not known."""
        row = self._run(lambda connection: connection.execute(select(Row).where(Row.id == run)).one_or_none())
        if row is None:
            raise RecordError(f"training run {run} is not known here")
        return TrainingRun.of(row._mapping)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _conclude(self, run: Claimed, state: RunState, now: datetime, **values: Any) -> None:
        self._move(_MINE.values(state=state.value, finished_at=now, **values, **_NO_LEASE, **_CHANGED), run)

    def _move(self, statement: Any, run: Claimed, **values: Any) -> None:
        self._run(lambda connection: _move(connection, statement, run, **values))

    def _run(self, work: Callable[[Connection], T]) -> T:
        """One transaction, again when the database asks for that. Raises `RecordError`."""
        for attempt in range(1, TRIES + 1):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                again = getattr(error.orig, "sqlstate", None) in _AGAIN or error.connection_invalidated
                if attempt == TRIES or not again:
                    raise RecordError(f"database: {str(error.orig).partition(chr(10))[0]}") from error
            except SQLAlchemyError as error:
                raise RecordError(f"database: {type(error).__name__}") from error
        raise AssertionError("unreachable")


def _move(connection: Connection, statement: Any, run: Claimed, **values: Any) -> None:
    if connection.execute(statement, {**_key(run), **values}).rowcount != 1:
        raise LeaseLost(f"training run {run.id}")


def _claim(connection: Connection, run: int, trainer: str, lease: timedelta, now: datetime) -> Claimed:
    values = {"run": run, "trainer": trainer, "until": now + lease, "now": now}
    if connection.execute(_CLAIM, values).rowcount != 1:
        raise LeaseLost(f"training run {run}")
    row = connection.execute(select(Row).where(Row.id == run)).one()
    return Claimed(
        id=row.id,
        name=row.name,
        preset=row.preset,
        description=row.description,
        data=row.data,
        folder=row.folder,
        attempt=row.attempts,
        trainer=trainer,
    )


def _key(run: Claimed) -> dict[str, Any]:
    return {"run": run.id, "attempt": run.attempt, "trainer": run.trainer}


def _sqlite(url: str) -> Engine:
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a writer waits at the door; a read that later wants to write would fail at once instead.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
