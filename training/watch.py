"""What a person sees of a run while it goes on: a live line, `progress.json`, TensorBoard, one log line an epoch."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress
from tensorboard.summary import Writer

from training.whole_file import write_whole

log = logging.getLogger("hilum.training")

PROGRESS: Final = "progress.json"
TENSORBOARD: Final = "tensorboard"
_EVERY: Final = 1.0  # seconds between two writes of the file
_SMOOTH: Final = 0.9  # of the films per second that are shown, per step


class Watch:
    """One run's progress.

    Parameters
    ----------
    folder:
        The run's; `progress.json` is replaced in it about once a second: "task", "stage", "epoch", "epochs", "step",
        "steps", "loss", "auroc", "films_per_second", "seconds_left" (of the stage), "history" (of the stage).
    progress:
        Where the live line goes.
    """

    def __init__(self, folder: Path, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / PROGRESS
        self._board = folder / TENSORBOARD
        self._progress, self._clock = progress, clock
        self._shown: dict[str, Any] = {}
        self._written = float("-inf")
        self._writer: Writer | None = None

    def task(self, name: str) -> None:
        """A new part of the run: "index", "multilabel", "evaluate", …"""
        log.info("task name=%s", name)
        self._shown = {"task": name}
        self._write()

    def stage(
        self, name: str, *, epochs: int, steps: int, batch: int, done: int, history: Sequence[dict[str, Any]]
    ) -> None:
        """A stage begins, or goes on after `done` of its epochs * steps of a batch each."""
        self._name = f"{self._shown.get('task', '')} {name}".strip()
        self._bar = self._progress.add_task(self._name, total=epochs * steps * batch, completed=done * batch)
        self._steps = steps
        self._shown |= {"stage": name, "epochs": epochs, "steps": epochs * steps, "history": list(history)}
        self._writer = Writer(str(self._board / self._name.replace(" ", "-")))
        self._rate = 0.0
        self._began = self._last = self._clock()

    def step(self, step: int, films: int, loss: float) -> None:
        """A batch has been trained on."""
        now = self._clock()
        rate = films / max(now - self._last, 1e-9)
        self._rate = _SMOOTH * self._rate + (1.0 - _SMOOTH) * rate if self._rate else rate
        self._last = now
        left = (self._shown["steps"] - step) * films / max(self._rate, 1e-9)
        self._shown |= {
            "epoch": (step - 1) // self._steps + 1,
            "step": step,
            "loss": round(loss, 5),
            "films_per_second": round(self._rate, 1),
            "seconds_left": round(left),
        }
        if now - self._written >= _EVERY:
            self._write()
        auroc = self._shown.get("auroc")
        words = f" AUROC {auroc:.3f}" if auroc is not None else ""
        self._progress.update(
            self._bar,
            completed=step * films,
            description=f"{self._name}: epoch {self._shown['epoch']}/{self._shown['epochs']} loss {loss:.3f}{words}",
        )

    def epoch_seconds(self) -> float:
        """Since the epoch began, or the stage."""
        return self._clock() - self._began

    def epoch(self, history: Sequence[dict[str, Any]]) -> None:
        """An epoch has ended; its figures are the last of `history`."""
        figures = history[-1]
        log.info("epoch stage=%r %s", self._name, " ".join(f"{k}={v}" for k, v in figures.items()))
        self._shown |= {"auroc": figures["auroc"], "history": list(history)}
        self._write()
        assert self._writer is not None  # noqa: S101 - a stage has begun
        for key in ("loss", "auroc", "learning_rate", "films_per_second"):
            if figures[key] is not None:
                self._writer.add_scalar(key, figures[key], int(figures["epoch"]))
        self._writer.flush()
        self._began = self._clock()

    def _write(self) -> None:
        self._written = self._clock()
        write_whole(self._path, json.dumps(self._shown))
