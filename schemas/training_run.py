"""A training run as the database knows it: its states, the table of moves, and what is told of it while it goes on.

requested ─► running ─► done
 ▲  │           ├─────► failed
 │  │           ├─────► cancelled
 │  └───────────│───────────▲
 └──────────────┘ its trainer died or was told to stop; `hilum runs resume` brings failed and cancelled back
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

ATTEMPTS: Final = 3  # a run that outlives so many trainers is set aside as failed: it may be what kills them
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # of a run and its bundle: it becomes a folder's name
LONGEST: Final = 2000  # characters of an error's words
ENTRIES: Final = 2000  # of a history
CURVES: Final = 64  # stages of a run whose histories are kept
LOGGED: Final = 6000  # characters of the log's end


class RunState(StrEnum):
    """Where a training run stands."""

    REQUESTED = "requested"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_MOVES: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.REQUESTED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    # back to REQUESTED: the lease lapsed, or the trainer was told to stop
    RunState.RUNNING: frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED, RunState.REQUESTED}),
    RunState.DONE: frozenset(),
    # back to REQUESTED: `hilum runs resume`; training goes on from its last checkpoint
    RunState.FAILED: frozenset({RunState.REQUESTED}),
    RunState.CANCELLED: frozenset({RunState.REQUESTED}),
}
FINISHED: Final = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


def before(state: RunState) -> tuple[RunState, ...]:
    """The states from which `state` may be reached, in the order of `RunState`: what a statement asks for."""
    return tuple(earlier for earlier in RunState if state in RUN_MOVES[earlier])


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """How one stage went."""

    task: str  # "multilabel", "binary"
    stage: str
    epochs: tuple[Mapping[str, Any], ...] = ()  # "epoch", "loss", "auroc", "minutes", ...: numbers and words by name

    @classmethod
    def of(cls, raw: Mapping[Any, Any]) -> Curve:
        """From JSON that another process wrote."""
        return cls(
            task=words_of(raw.get("task"), 200),
            stage=words_of(raw.get("stage"), 200),
            epochs=_entries(raw.get("epochs")),
        )

    def to_json(self) -> dict[str, Any]:
        """What `of` takes back."""
        return {"task": self.task, "stage": self.stage, "epochs": [dict(entry) for entry in self.epochs]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is. None and "" stand for what is not known (yet)."""

    task: str = ""  # part of the flow: "index", "cache", "multilabel", "evaluate", ...
    stage: str = ""  # of the fit
    epoch: int | None = None  # of the stage, from 1
    epochs: int | None = None
    step: int | None = None  # of the stage: batches so far
    steps: int | None = None
    films_per_second: float | None = None
    seconds_left: float | None = None  # of the stage
    loss: float | None = None
    auroc: float | None = None  # macro, on validation films
    history: tuple[Mapping[str, Any], ...] = ()  # of the stage, one for each epoch: numbers and words by name
    curves: tuple[Curve, ...] = ()  # of every stage so far
    log: str = ""  # its end

    @classmethod
    def of(cls, raw: object) -> Progress:
        """From JSON that another process wrote: what is not of its kind, or not finite, is left out."""
        if not isinstance(raw, Mapping):
            return cls()
        curves = raw.get("curves")
        stages = [curve for curve in curves if isinstance(curve, Mapping)] if isinstance(curves, list) else []
        return cls(
            task=words_of(raw.get("task"), 200),
            stage=words_of(raw.get("stage"), 200),
            epoch=_count(raw.get("epoch")),
            epochs=_count(raw.get("epochs")),
            step=_count(raw.get("step")),
            steps=_count(raw.get("steps")),
            films_per_second=_number(raw.get("films_per_second")),
            seconds_left=_number(raw.get("seconds_left")),
            loss=_number(raw.get("loss")),
            auroc=_number(raw.get("auroc")),
            history=_entries(raw.get("history")),
            curves=tuple(Curve.of(curve) for curve in stages[-CURVES:]),
            log=words_of(raw.get("log"), LOGGED),
        )

    def to_json(self) -> dict[str, Any]:
        """What `of` takes back, fit for a column of any database."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        curves = [curve.to_json() for curve in self.curves]
        return plain | {"history": [dict(entry) for entry in self.history], "curves": curves}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """One row."""

    id: int
    name: str  # of the run and its bundle
    state: RunState
    preset: str  # "": described in full by `description`
    description: str  # TOML; "" until a trainer has looked the preset up
    data: str  # folder of films, as the trainer's host knows it
    folder: str  # of the run, on the trainer's host; "" before it began
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    trainer: str  # who holds it; "" when nobody does
    lease_until: datetime | None
    cancel_asked: bool
    progress: Progress
    # of a done run: "bundle" (folder), "model_id", "name", "version", "macro" and "binary" (AUROC, see `Figure`)
    result: Mapping[str, Any] | None
    error: str  # of a failed run

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> TrainingRun:
        """From the columns of `schemas.tables.TrainingRunRow`."""
        same = ("id", "name", "preset", "description", "data", "folder", "requested_by", "requested_at", "started_at")
        more = ("finished_at", "attempts", "lease_until", "cancel_asked", "result", "error")
        return cls(
            **{name: row[name] for name in (*same, *more)},
            state=RunState(row["state"]),
            trainer=row["lease_owner"] or "",
            progress=Progress.of(row["progress"]),
        )

    def to_json(self) -> dict[str, Any]:
        """For programs: times in ISO 8601."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name, value in plain.items():
            if isinstance(value, datetime):
                plain[name] = value.isoformat()
        return plain | {"progress": self.progress.to_json(), "state": self.state.value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Retraining:
    """An entry of the calendar: a run that is asked for again and again."""

    id: int
    name: str  # its runs are called so, with their date
    cron: str  # minute, hour, day of the month, month, weekday; UTC
    preset: str
    description: str  # TOML that is laid over the preset; "": nothing is
    data: str
    made_by: str
    made_at: datetime
    next_at: datetime
    last_run: int | None

    def to_json(self) -> dict[str, Any]:
        """For programs: times in ISO 8601."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"made_at": self.made_at.isoformat(), "next_at": self.next_at.isoformat()}


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownTrainer:
    """A trainer that said that it is there."""

    name: str  # host/process
    presets: Mapping[str, str]  # that it knows: name → what it is for
    seen_at: datetime


def words_of(raw: object, longest: int = LONGEST) -> str:
    """Text that every database takes and no terminal obeys: one printable line or more, cut at `longest`."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return ""
    kept = "".join(c if c.isprintable() or c == "\n" else " " for c in str(raw))
    return kept.encode("utf-8", "replace").decode("utf-8").strip()[:longest]


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        return float(raw) if math.isfinite(raw) else None
    except OverflowError:  # JSON knows integers without end
        return None


def _count(raw: object) -> int | None:
    number = _number(raw)
    return None if number is None or number < 0 else int(number)


def _entries(raw: object) -> tuple[dict[str, Any], ...]:
    entries = [entry for entry in raw if isinstance(entry, Mapping)] if isinstance(raw, list) else []
    return tuple(_entry(entry) for entry in entries[-ENTRIES:])


def _entry(raw: Mapping[Any, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in list(raw.items())[:64]:
        number = _number(value)
        plain[words_of(key, 64)] = words_of(value, 200) if number is None and isinstance(value, str) else number
    return plain
