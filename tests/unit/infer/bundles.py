"""Bundles and runtimes without a model in them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.card import Calibration, ModelCard
from schemas.findings import LABELS
from worker.ports import Logits

SIZE = 4
OUTPUTS = ("binary", *LABELS)


def card(**fields: Any) -> ModelCard:
    """A card whose probabilities are plain sigmoids of the logits."""
    standard: dict[str, Any] = {
        "name": "fake",
        "version": "1",
        "architecture": "densenet121",
        "input_size": SIZE,
        "labels": LABELS,
        "recipe_fingerprint": "recipe-4",
        "files": {},
        "thresholds": dict.fromkeys(OUTPUTS, 0.5),
        "calibration": dict.fromkeys(OUTPUTS, Calibration()),
        "split_hash": "0",
    }
    return ModelCard(**{**standard, **fields})


def film(grey: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), grey, np.uint8)


def answer(batch: NDArray[np.uint8]) -> Logits:
    """Logits that tell the film: the binary one is its grey level / 100, the k-th finding that plus k / 10."""
    grey = batch[:, 0, 0, 0].astype(np.float32) / 100
    return Logits(grey, grey[:, None] + np.arange(15, dtype=np.float32) / 10)


class FakeRuntime:
    """A runtime that answers `answer`, remembers its batches, and can be held or made to fail."""

    name, device = "fake", "none"

    def __init__(
        self, best_batch: int = 8, fault: Callable[[list[int]], Exception | None] = lambda films: None
    ) -> None:
        self.best_batch = best_batch
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Semaphore(0)
        self.closed = False
        self._fault = fault

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        films = batch[:, 0, 0, 0].tolist()
        self.batches.append(films)
        self.begun.release()
        assert self.free.wait(30)
        fault = self._fault(films)
        if fault is not None:
            raise fault
        return answer(batch)

    def close(self) -> None:
        self.closed = True


def write_bundle(folder: Path, **fields: Any) -> ModelCard:
    """All the files of a bundle; the graphs are empty, the golden vectors those of `answer`."""
    folder.mkdir(parents=True)
    for model in ("binary", "multilabel"):
        (folder / f"{model}.json").write_text("{}")
        np.savez(folder / f"{model}.npz", w=np.zeros(1, np.float16))
    inputs = np.stack([film(grey) for grey in (10, 60, 200)])
    golden = answer(inputs)
    np.savez(folder / "golden.npz", inputs=inputs, binary=golden.binary, findings=golden.findings)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    written = card(**{"files": files, **fields})
    (folder / "card.json").write_text(written.to_json())
    return written
