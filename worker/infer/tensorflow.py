"""Both models by TensorFlow: XLA on a GPU, plain graphs on the CPU (the reference that OpenVINO is held against)."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from typing import Any

# TensorFlow's C++ side writes to stderr on import and reads this before anything could be configured.
# putenv, not os.environ: hilum's own settings stay the only readers and writers of that.
os.putenv("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from schemas.card import MODELS
from schemas.errors import BundleInvalid, ConfigurationError, OutOfMemory
from worker.infer.answers import OUTPUTS, joined
from worker.infer.bundle import Bundle
from worker.ports import Logits

log = logging.getLogger("hilum.infer")


class TensorFlow:
    """`worker.ports.Runtime` on the first GPU, or on the CPU where there is none.

    On a GPU every batch is padded to a power of two, because XLA compiles for each shape; all of them up to
    `max_batch` are compiled before the constructor returns, so that no film waits for the compiler. The models are
    called directly (`predict` grows without bound when it is called for ever).

    Raises
    ------
    BundleInvalid
        The graph cannot be read, or its weights are not those of the bundle.
    ConfigurationError
        Keras was told to use another backend.
    """

    name = "tensorflow"

    def __init__(self, bundle: Bundle, *, threads: int, max_batch: int) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ConfigurationError(
                f"Keras runs on {keras.backend.backend()!r}; unset KERAS_BACKEND and mend ~/.keras/keras.json"
            )
        self._on_gpu = _prepare(threads)
        self.device = "GPU xla" if self._on_gpu else "CPU f32"
        self.best_batch = max_batch
        self._models = [keras_model(bundle, name) for name in MODELS]
        self._shape = (bundle.card.input_size, bundle.card.input_size, 3)

        @tf.function(jit_compile=self._on_gpu)  # type: ignore[untyped-decorator]
        def forward(batch: Any) -> Any:
            return [model(batch, training=False) for model in self._models]

        # Traced here and called as they are: `tf.function` keeps its lock when a call does not fit, and hangs the next.
        self._sizes = _powers(max_batch) if self._on_gpu else [max_batch]
        shapes = {count: (count if self._on_gpu else None, *self._shape) for count in self._sizes}
        self._forward = {n: forward.get_concrete_function(tf.TensorSpec(s, tf.uint8)) for n, s in shapes.items()}
        for count in self._sizes:
            started = time.perf_counter()
            self.run(np.zeros((count, *self._shape), np.uint8))
            elapsed = round(1000 * (time.perf_counter() - started))
            log.info("runtime-compiled batch=%d ms=%.0f", count, elapsed)

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        """As `worker.ports.Runtime.run`."""
        if batch.shape[1:] != self._shape or batch.dtype != np.uint8:
            raise ValueError(f"the model takes uint8 (N, *{self._shape}), not {batch.dtype} {batch.shape}")
        answers: dict[tuple[str, str], list[NDArray[np.float32]]] = defaultdict(list)
        largest = self._sizes[-1]
        try:
            for first in range(0, len(batch), largest):
                films = batch[first : first + largest]
                count = next(size for size in self._sizes if size >= len(films))
                padding = count - len(films) if self._on_gpu else 0
                padded = np.concatenate([films, np.zeros((padding, *films.shape[1:]), np.uint8)])
                for model, outputs in zip(MODELS, self._forward[count](tf.constant(padded)), strict=True):
                    for output in OUTPUTS if maps else OUTPUTS[:1]:
                        answers[model, output].append(outputs[output].numpy()[: len(films)])
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise OutOfMemory(f"{self.device}: batch of {len(batch)}") from error
        return joined(answers)

    def close(self) -> None:
        """Let go of both models; TensorFlow keeps its memory until the process ends."""
        self._forward.clear()
        self._models.clear()


def _prepare(threads: int) -> bool:
    """Is there a GPU? Once per process, before anything has run: no hoarding of its memory, no more cores than told."""
    gpus = tf.config.list_physical_devices("GPU")
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:  # a second runtime in one process: the first has set both
        log.debug("tensorflow-was-started")
    return bool(gpus)


def keras_model(bundle: Bundle, name: str) -> Any:
    """One of the bundle's models, float32: uint8 (N, size, size, 3) -> {"logits", "maps"}. Raises `BundleInvalid`."""
    weights = bundle.weights(name)
    try:
        model = keras.models.model_from_json(bundle.graph(name))
        for variable in model.weights:
            variable.assign(weights[variable.path].astype(np.float32))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleInvalid(f"{bundle.folder}: {name} cannot be built ({error}); export the bundle again") from error
    if not isinstance(model.output, dict) or set(model.output) != set(OUTPUTS):
        raise BundleInvalid(f'{bundle.folder}: {name}.json must give "logits" and "maps"; export it again')
    return model


def _powers(count: int) -> list[int]:
    """1, 2, 4, ... up to the first that holds `count`."""
    return [1 << k for k in range((count - 1).bit_length() + 1)]
