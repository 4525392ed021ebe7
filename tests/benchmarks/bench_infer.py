"""Both models through the engine, beside OpenVINO's own benchmark tool on the same two graphs.

Run alone: `python -m tests.benchmarks.bench_infer [BUNDLE]`.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from schemas.card import MODELS
from schemas.image import Tensor
from worker import assemble
from worker.infer import keras_graph
from worker.infer.bundle import Bundle
from worker.infer.engine import Engine
from worker.settings import Model, Settings

ROUNDS = 3  # the best of each counts: whatever else runs on the machine only ever slows
SECONDS = 8
SENDERS = 4


def run(bundle: str = "starter") -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    settings = Settings(model=Model(bundle=bundle, runtime="openvino"))
    started = time.perf_counter()
    model = assemble.bundle(settings)
    engine = assemble.engine(settings, model)
    ready = time.perf_counter() - started
    try:
        films = _films(model)
        alone = _alone(engine, films)
        resident = psutil.Process().memory_info().rss / 2**20
        ours, theirs = [], []
        with tempfile.TemporaryDirectory() as folder:
            graphs = _serialised(model, Path(folder))
            for _ in range(ROUNDS):
                ours.append(_together(engine, films))
                theirs.append(1.0 / sum(1.0 / _benchmark_app(graph) for graph in graphs))
    finally:
        engine.close()
    share = 100.0 * max(ours) / max(theirs)
    return [
        ("both models, engine", f"{max(ours):.1f} films/s", ""),
        ("both models, OpenVINO's benchmark_app", f"{max(theirs):.1f} films/s", ""),
        ("both models, share of benchmark_app", f"{share:.0f} %", "≥ 90 %"),
        ("both models, one film", f"p50 {statistics.median(alone):.0f} ms, best {min(alone):.0f} ms", ""),
        ("models opened, loaded, proven", f"{ready:.1f} s", ""),
        ("resident memory with both models", f"{resident:.0f} MiB", ""),
    ]


def _films(model: Bundle) -> list[Tensor]:
    size = model.card.input_size
    return list(np.random.default_rng(0).integers(0, 256, (16, size, size, 3), dtype=np.uint8))


def _alone(engine: Engine, films: list[Tensor]) -> list[float]:
    """Milliseconds of one film at a time."""
    times = []
    for i in range(60):
        started = time.perf_counter()
        engine.submit(films[i % len(films)]).result()
        times.append(1000.0 * (time.perf_counter() - started))
    return times


def _together(engine: Engine, films: list[Tensor]) -> float:
    """Films per second when several threads each submit and wait, as readers do."""
    until = time.perf_counter() + SECONDS
    done = [0] * SENDERS

    def send(sender: int) -> None:
        while time.perf_counter() < until:
            engine.submit(films[(sender + done[sender]) % len(films)]).result()
            done[sender] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=send, args=(i,)) for i in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def _serialised(model: Bundle, folder: Path) -> list[Path]:
    import openvino

    paths = []
    for name in MODELS:
        graph = keras_graph.build(model.graph(name), model.weights(name))
        graph.reshape([1, model.card.input_size, model.card.input_size, 3])
        paths.append(folder / f"{name}.xml")
        openvino.serialize(graph, str(paths[-1]))
    return paths


def _benchmark_app(graph: Path) -> float:
    """Films per second of one graph on all cores, in the tool's own best settings for throughput."""
    tool = Path(sys.executable).with_name("benchmark_app")
    command = [str(tool), "-m", str(graph), "-d", "CPU", "-hint", "throughput", "-t", str(SECONDS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Throughput:\s+([\d.]+) FPS", output)
    if found is None:
        raise RuntimeError(f"{tool}: no throughput in its output")
    return float(found.group(1))


if __name__ == "__main__":
    for row in run(*sys.argv[1:2]):
        print("  ".join(f"{cell:40}" for cell in row))
