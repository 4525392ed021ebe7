"""How far a training run is, as a page says it: from what its trainer told to words, a bar and a row of steps."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.figures import figure_in
from schemas.training_run import FINISHED, Progress, RunState, TrainingRun
from worker.worklist.web.curves import Chart, charts

FITS: Final = ("multilabel", "binary")  # the two models, in the order in which they are trained
_BEFORE: Final = ("index", "split", "cache")
_AFTER: Final = ("calibrate", "evaluate", "report", "export")
_WORDS: Final = {
    RunState.REQUESTED: "waiting for a trainer",
    RunState.RUNNING: "running",
    RunState.DONE: "done",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "cancelled",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What is shown of a run."""

    run: TrainingRun
    state: str  # in words
    silent: bool  # held by a trainer that is not heard of any more
    share: float | None  # of all epochs; None: not known
    here: str  # what it is at
    speed: str
    left: str  # of the stage
    steps: tuple[tuple[str, str], ...]  # name, and "done", "now" or "later"
    charts: tuple[Chart, ...]
    epochs: tuple[dict[str, Any], ...]  # task, stage and figures of each, the last first
    figures: tuple[tuple[str, str], ...]  # of the result, in words
    took: str

    @property
    def may_cancel(self) -> bool:
        """Whether there is something to call off."""
        return self.run.state not in FINISHED and not self.run.cancel_asked

    @property
    def may_resume(self) -> bool:
        """Whether it can be asked for again."""
        return self.run.state in {RunState.FAILED, RunState.CANCELLED}


def course(run: TrainingRun, now: datetime) -> Course:
    """A run at this moment."""
    p = run.progress
    running = run.state is RunState.RUNNING
    planned = plan(run.description)
    silent = running and run.lease_until is not None and run.lease_until < now
    going = running and not silent
    took = "" if run.started_at is None else lasting(((run.finished_at or now) - run.started_at).total_seconds())
    return Course(
        run=run,
        state="is being stopped" if running and run.cancel_asked else _WORDS[run.state],
        silent=silent,
        share=1.0 if run.state is RunState.DONE else _share(p, planned),
        here=f"took {took}" if run.state is RunState.DONE else _here(p),
        speed=f"{p.films_per_second:.1f} films/s" if going and p.films_per_second is not None else "",
        left=lasting(p.seconds_left) if going and p.seconds_left is not None else "",
        steps=_steps(run, planned),
        charts=tuple(charts(p.curves, planned)),
        epochs=tuple(
            {"task": curve.task, "stage": curve.stage, **figures}
            for curve in reversed(p.curves)
            for figures in reversed(curve.epochs)
        ),
        figures=tuple(
            (words, str(figure))
            for words, name in (("binary AUROC", "binary"), ("mean AUROC of the findings", "macro"))
            if (figure := figure_in(run.result or {}, name)) is not None
        ),
        took=took,
    )


def plan(description: str) -> list[tuple[str, str, int]]:
    """Task, stage and epochs of each stage, in order; nothing where the description is not in full (yet)."""
    try:
        said = tomllib.loads(description)
    except tomllib.TOMLDecodeError:
        return []
    found = []
    for task in FITS:
        stages = said.get(task)
        for stage in stages if isinstance(stages, list) else ():
            if isinstance(stage, dict) and isinstance(epochs := stage.get("epochs", 1), int):
                found.append((task, str(stage.get("name", "")), max(1, epochs)))
    return found


def groups(description: str) -> dict[str, list[str]]:
    """Labels that share an output, by the group's name."""
    try:
        said = tomllib.loads(description)
    except tomllib.TOMLDecodeError:
        return {}
    model = said.get("model")
    found = model.get("groups") if isinstance(model, dict) else None
    items = found.items() if isinstance(found, dict) else ()
    return {str(name): [str(label) for label in labels] for name, labels in items if isinstance(labels, list)}


def lasting(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 05"."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d}"


def _here(p: Progress) -> str:
    parts = [" ".join(part for part in (p.task, p.stage) if part)]
    if p.epoch is not None:
        parts.append(f"epoch {p.epoch}" + (f" of {p.epochs}" if p.epochs else ""))
    return ", ".join(part for part in parts if part)


def _share(p: Progress, planned: Sequence[tuple[str, str, int]]) -> float | None:
    """Of the epochs of all stages; of the stage alone, where no plan is known."""
    inside = min(1.0, p.step / p.steps) if p.step is not None and p.steps else 0.0
    if not planned:
        return inside if p.steps else None
    whole = sum(epochs for _, _, epochs in planned)
    done = 0.0
    if p.task in _AFTER or p.task == "done":
        return 1.0
    if p.task not in FITS:
        return 0.0
    for task, stage, epochs in planned:
        if task == p.task and (not p.stage or stage == p.stage):
            return (done + inside * epochs) / whole
        done += epochs
    return None


def _steps(run: TrainingRun, planned: Sequence[tuple[str, str, int]]) -> tuple[tuple[str, str], ...]:
    fits = [task for task in FITS if not planned or any(t == task for t, _, _ in planned)]
    names = [*_BEFORE, *fits, *_AFTER]
    task = fits[0] if run.progress.task == "fit" else run.progress.task
    if run.state is RunState.DONE or task == "done":
        return tuple((name, "done") for name in names)
    at = names.index(task) if task in names else -1
    now = "now" if run.state is RunState.RUNNING else "later"
    return tuple((name, "done" if i < at else now if i == at else "later") for i, name in enumerate(names))
