"""One film from file to tensor, on one core: 2500 x 2048, 16 bits allocated, uncompressed."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from schemas.gate import GateRules
from worker.decode.film import read_film
from worker.simulate import phantom
from worker.tensor.recipe import to_tensor

ROUNDS = 40


def run() -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.dcm"
            phantom.dataset(1).save_as(path, enforce_file_format=True)
            decode, tensor = [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                film = read_film(path, GateRules())
                decoded = time.perf_counter()
                to_tensor(film.pixels)
                decode.append(1000 * (decoded - began))
                tensor.append(1000 * (time.perf_counter() - decoded))
    finally:
        os.sched_setaffinity(0, cores)
    whole = [a + b for a, b in zip(decode, tensor, strict=True)]
    return [
        ("file to tensor, one core, p50", f"{statistics.median(whole):.1f} ms", "≤ 30 ms"),
        ("… of it decode and gate", f"{statistics.median(decode):.1f} ms", ""),
        ("… of it the tensor recipe", f"{statistics.median(tensor):.1f} ms", ""),
    ]


if __name__ == "__main__":
    for row in run():
        print(*row, sep=" | ")
