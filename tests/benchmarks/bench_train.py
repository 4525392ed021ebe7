"""Training steps beside a bare loop: the same compiled step, fed with random tensors that cost nothing to make.

Run alone: `python -m tests.benchmarks.bench_train`.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.progress import Progress

from tests.conftest import films_folder
from training import speed
from training.description import Loss, Model, Stage
from training.fit import Films, Network, batches_of, compiled
from training.nih_index import find_table, read_index, targets
from training.pixel_cache import pixel_cache
from training.targets import columns_of, wanted

FILMS = 256
SECONDS = 20
ROUNDS = 2  # the better counts: whatever else runs on the machine only ever slows


def run() -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    rows = []
    speed.prepare()
    for size, batch in ((128, 32), (224, 16)):
        ours, bare = _measured(Stage(name="bench", size=size, batch=batch))
        rows += [
            (f"training step, {size} px, real films", f"{ours:.1f} films/s", ""),
            (f"training step, {size} px, random tensors", f"{bare:.1f} films/s", ""),
            (f"training step, {size} px, share of the bare loop", f"{100 * ours / bare:.0f} %", "≥ 95 %"),
        ]
    return rows


def _measured(stage: Stage) -> tuple[float, float]:
    nih = films_folder() / "nih"
    films = read_index(find_table(nih), [nih]).films[:FILMS]
    columns = columns_of("multilabel", Model(), Loss())
    truth = wanted(columns, films, targets(films))
    net = Network(
        backbone="densenet121",
        scaling="",
        main=columns.main,
        judged=columns.judged,
        loss=Loss(),
        seed=0,
        mixed_precision=True,
    )
    with tempfile.TemporaryDirectory() as folder, Progress(disable=True) as progress, speed.reduced_precision():
        cache = pixel_cache(films, Path(folder), stage.size, progress)
        side = Films(pixels=cache.pixels, members=np.arange(len(films)), targets=truth)
        model, _ = compiled(stage, net, truth, start=None)
        tensors = np.random.default_rng(0).integers(0, 256, (stage.batch, stage.size, stage.size, 3), dtype=np.uint8)
        model.train_on_batch(tensors, truth[: stage.batch])  # compiles

        def random() -> int:
            model.train_on_batch(tensors, truth[: stage.batch])
            return stage.batch

        epochs = itertools.count()

        def real() -> int:
            for pixels, labels in batches_of(stage, side, 0, next(epochs)):
                model.train_on_batch(pixels, labels)
            return len(side) // stage.batch * stage.batch

        rates = [(_rate(real), _rate(random)) for _ in range(ROUNDS)]
    return max(ours for ours, _ in rates), max(bare for _, bare in rates)


def _rate(train: Callable[[], int]) -> float:
    """Films a second."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        done += train()
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    for row in run():
        print(*row, sep="  ")
