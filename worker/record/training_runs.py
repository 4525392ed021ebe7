"""Training runs as the worker sees them: asked for, looked at, called off. `training.runs` is the trainers' side."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, null, select, update

from schemas.errors import ConfigurationError, RecordError
from schemas.tables import TrainerRow, TrainingReportRow, TrainingRunRow
from schemas.training_run import FINISHED, NAME, RUN_MOVES, KnownTrainer, Progress, RunState, TrainingRun
from worker.record.database import Database
from worker.record.rows import word
from worker.record.shapes import clean

LARGEST: Final = 64 << 10  # characters of a description

_BY_ID: Final = select(TrainingRunRow).where(TrainingRunRow.id == bindparam("run"))
_LATEST: Final = select(TrainingRunRow).order_by(TrainingRunRow.id.desc()).limit(bindparam("limit"))
_REPORT: Final = select(TrainingReportRow.html).where(TrainingReportRow.run_id == bindparam("run"))
_TRAINERS: Final = (
    select(TrainerRow)
    .where(TrainerRow.seen_at >= bindparam("since"))
    .order_by(TrainerRow.seen_at.desc(), TrainerRow.name)
)
_TOKEN: Final = select(func.count(), func.sum(TrainingRunRow.changes), func.max(TrainingRunRow.id))
_CHANGE: Final = (
    update(TrainingRunRow).where(TrainingRunRow.id == bindparam("run")).values(changes=TrainingRunRow.changes + 1)
)
# A run that nobody holds is over at once; whoever holds one hears of it within a second or two.
_CANCEL: Final = _CHANGE.values(state=word(RunState.CANCELLED), cancel_asked=True, finished_at=bindparam("now"))
_ASK: Final = _CHANGE.values(cancel_asked=True)
_RESUME: Final = _CHANGE.values(
    state=word(RunState.REQUESTED),
    cancel_asked=False,
    attempts=0,
    error="",
    requested_at=bindparam("now"),
    finished_at=None,
)


class TrainingRuns:
    """What was asked of the trainers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def request(
        self, *, name: str, data: str, requested_by: str, now: datetime, preset: str = "", description: str = ""
    ) -> int:
        """Queue a run; returns its number. A trainer takes it when one is free.

        Parameters
        ----------
        name:
            Of the run and its bundle.
        data:
            The folder of films, as the trainer's host knows it.
        preset, description:
            A name that the trainer looks up (presets are not known here), or TOML in full; of both, the TOML is laid
            over the preset.

        Raises
        ------
        ConfigurationError
            A name that cannot be a folder's, no data, no description, or no TOML.
        RecordError
            The database refused.
        """
        proper(name, data, preset, description)
        return self._database.write(
            lambda connection: ask(
                connection,
                name=name,
                preset=preset,
                description=description,
                data=data,
                requested_by=requested_by,
                now=now,
            )
        )

    def ask_to_cancel(self, run: int, now: datetime) -> RunState:
        """Call a run off; returns its state: CANCELLED at once when it waited, else still RUNNING until it stops.

        Raises
        ------
        RecordError
            No such run, or it has finished.
        """

        def work(connection: Connection) -> RunState:
            state = _found(connection, run, lock=True).state
            if state in FINISHED:
                raise RecordError(f"training run {run} is {state}: there is nothing to cancel")
            if state is RunState.RUNNING:
                connection.execute(_ASK, {"run": run})
                return state
            connection.execute(_CANCEL, {"run": run, "now": now})
            return RunState.CANCELLED

        return self._database.write(work)

    def resume(self, run: int, now: datetime) -> None:
        """Queue a failed or cancelled run again: it goes on from its last checkpoint.

        Raises
        ------
        RecordError
            No such run, or it is not failed or cancelled.
        """

        def work(connection: Connection) -> None:
            state = _found(connection, run, lock=True).state
            if state not in FINISHED or RunState.REQUESTED not in RUN_MOVES[state]:
                raise RecordError(f"training run {run} is {state}: only failed and cancelled runs are resumed")
            connection.execute(_RESUME, {"run": run, "now": now})

        self._database.write(work)

    def list(self, limit: int = 50) -> list[TrainingRun]:
        """The latest first."""
        return self._database.read(
            lambda connection: [TrainingRun.of(row._mapping) for row in connection.execute(_LATEST, {"limit": limit})]
        )

    def show(self, run: int) -> TrainingRun:
        """One run. Raises `RecordError` when it is not known."""
        return self._database.read(lambda connection: _found(connection, run))

    def find(self, run: int) -> TrainingRun | None:
        """One run; None when it is not known."""
        row = self._database.read(lambda connection: connection.execute(_BY_ID, {"run": run}).one_or_none())
        return None if row is None else TrainingRun.of(row._mapping)

    def report(self, run: int) -> str | None:
        """The page that the run left; None when there is none."""
        return self._database.read(lambda connection: connection.scalar(_REPORT, {"run": run}))

    def trainers(self, since: datetime) -> Sequence[KnownTrainer]:
        """Those that were heard of since then, the latest first."""
        return self._database.read(
            lambda connection: [
                KnownTrainer(name=row.name, presets=row.presets, seen_at=row.seen_at)
                for row in connection.execute(_TRAINERS, {"since": since})
            ]
        )

    def change_token(self) -> str:
        """A value that differs from an earlier one whenever `list` or `show` may say something new."""
        return self._database.read(
            lambda connection: ".".join(str(part or 0) for part in connection.execute(_TOKEN).one())
        )


def _found(connection: Connection, run: int, *, lock: bool = False) -> TrainingRun:
    row = connection.execute(_BY_ID.with_for_update() if lock else _BY_ID, {"run": run}).one_or_none()
    if row is None:
        raise RecordError(f"training run {run} is not known here; `hilum runs list` shows those that are")
    return TrainingRun.of(row._mapping)


def ask(
    connection: Connection, *, name: str, preset: str, description: str, data: str, requested_by: str, now: datetime
) -> int:
    """Queue a run whose words are `proper`; returns its number."""
    values: dict[str, Any] = {
        "name": name,
        "state": RunState.REQUESTED.value,
        "preset": preset,
        "description": clean(description),
        "data": clean(data),
        "folder": "",
        "requested_by": clean(requested_by)[:200],
        "requested_at": now,
        "attempts": 0,
        "cancel_asked": False,
        "progress": Progress().to_json(),
        "result": null(),  # not JSON's null
        "error": "",
        "changes": 1,
    }
    return int(connection.execute(insert(TrainingRunRow).values(values).returning(TrainingRunRow.id)).scalar_one())


def proper(name: str, data: str, preset: str, description: str) -> None:
    """Whether a run can be asked for so. Raises `ConfigurationError`."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"name {name[:80]!r}: letters, digits, . _ - and no more than 63 of them")
    if not data.strip():
        raise ConfigurationError("data: say in which folder the films are")
    if not preset and not description:
        raise ConfigurationError("a run is described by a preset, by a TOML file, or by both: give one of them")
    if preset and not NAME.fullmatch(preset):
        raise ConfigurationError(f"preset {preset[:80]!r}: not the name of a preset")
    if len(description) > LARGEST:
        raise ConfigurationError(f"description: longer than {LARGEST} characters; is this a run's TOML file?")
    try:
        tomllib.loads(description)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"description: not TOML: {error}") from error
