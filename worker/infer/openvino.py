"""Both models on CPU cores by OpenVINO. No TensorFlow, no batching: the models side by side, one film at a time.

Measured with DenseNet121 on two cores with AVX512_BF16: a film costs 27 ms of one core in bfloat16 (57 ms in float32)
whatever the batch, because the convolutions alone fill the core. So each model gets half the cores and both run at
once: both answer after 27 ms, where one after the other on all cores takes 32 ms, and nothing is padded.
"""

from __future__ import annotations

import queue
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from schemas.card import MODELS
from schemas.errors import BundleInvalid, OutOfMemory
from worker.infer import keras_graph
from worker.infer.answers import OUTPUTS, joined
from worker.infer.bundle import Bundle
from worker.ports import Logits

THREADS_PER_STREAM: Final = 4  # beyond, DenseNet121's small layers leave a film's threads idle: begin another film
CALLERS: Final = 2  # calls of `run` at once; with two, the cores never wait for Python between films


class OpenVino:
    """`worker.ports.Runtime` on the CPU.

    Parameters
    ----------
    threads:
        CPU cores to use for both models together.
    precision:
        "bf16" (taken only where the CPU computes in it) or "f32".

    Raises
    ------
    BundleInvalid
        A graph has a layer that OpenVINO is not taught, or other outputs than a bundle's.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, *, threads: int, precision: str = "bf16") -> None:
        core = ov.Core()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precision = "f32"
        per_model = max(1, threads // len(MODELS))
        self.device = f"CPU {precision}"
        self.best_batch = max(1, per_model // THREADS_PER_STREAM)
        self._shape = (bundle.card.input_size, bundle.card.input_size, 3)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": per_model,
            "NUM_STREAMS": self.best_batch,
            "ENABLE_CPU_PINNING": False,  # pinned, both models would take the same first cores
        }

        def load(model: str) -> Any:
            graph = keras_graph.build(bundle.graph(model), bundle.weights(model))
            if {output.any_name for output in graph.outputs} != set(OUTPUTS):
                raise BundleInvalid(f'{bundle.folder}: {model}.json must give "logits" and "maps"; export it again')
            graph.reshape([1, *self._shape])
            return core.compile_model(graph, "CPU", options)

        with ThreadPoolExecutor(len(MODELS)) as pool:
            compiled = list(pool.map(load, MODELS))
        # A lane is what one caller of `run` holds: a request of each model for every film in flight.
        self._lanes: queue.SimpleQueue[list[list[Any]]] = queue.SimpleQueue()
        for _ in range(CALLERS):
            self._lanes.put([[model.create_infer_request() for model in compiled] for _ in range(self.best_batch)])

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        """As `worker.ports.Runtime.run`."""
        if batch.shape[1:] != self._shape or batch.dtype != np.uint8:
            raise ValueError(f"the model takes uint8 (N, *{self._shape}), not {batch.dtype} {batch.shape}")
        answers: dict[tuple[str, str], list[NDArray[np.float32]]] = defaultdict(list)
        lane = self._lanes.get()
        try:
            for first in range(0, len(batch), len(lane)):
                flight = list(zip(batch[first : first + len(lane)], lane, strict=False))
                for film, requests in flight:
                    for request in requests:
                        request.start_async({0: film[np.newaxis]}, share_inputs=True)
                for _, requests in flight:
                    for model, request in zip(MODELS, requests, strict=True):
                        request.wait()
                        for output in OUTPUTS if maps else OUTPUTS[:1]:
                            answers[model, output].append(request.get_tensor(output).data.copy())
        except (MemoryError, RuntimeError) as error:  # a bad_alloc inside OpenVINO comes as a RuntimeError that says so
            if isinstance(error, MemoryError) or "bad_alloc" in str(error):
                raise OutOfMemory(f"{self.device}: {error}") from error
            raise
        finally:
            _settle(lane)
            self._lanes.put(lane)
        return joined(answers)

    def close(self) -> None:
        """Wait for the calls in hand and release both models."""
        for _ in range(CALLERS):
            self._lanes.get()


def _settle(lane: list[list[Any]]) -> None:
    """No request of the lane is left running, whatever went wrong with one of them."""
    for requests in lane:
        for request in requests:
            with suppress(RuntimeError):  # told already, by the first wait
                request.wait()
