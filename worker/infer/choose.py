"""Which runtime serves, and the way to it. TensorFlow and OpenVINO are imported here only when they are asked for."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError, GoldenMismatch
from worker.infer.bundle import Bundle
from worker.ports import Runtime

log = logging.getLogger("hilum.infer")

INSTALL: Final = "pip install 'hilum[cpu]' (OpenVINO) or 'hilum[gpu]' (TensorFlow with CUDA)"
GPU_DEVICE: Final = Path("/dev/nvidia0")  # what the driver, or the container's runtime, puts there
CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def choose_runtime(setting: str, *, gpu: Path = GPU_DEVICE) -> str:
    """What "auto" means here: "tensorflow" where there is an NVIDIA GPU, else "openvino"; else whichever is installed.

    Raises
    ------
    ConfigurationError
        The runtime asked for, or any, is not installed.
    """
    order = ("tensorflow", "openvino") if gpu.exists() else ("openvino", "tensorflow")
    for name in order if setting == "auto" else (setting,):
        if importlib.util.find_spec(name) is not None:
            return name
    raise ConfigurationError(f"model.runtime: {setting!r} is not installed; {INSTALL}")


def load_runtime(name: str, bundle: Bundle, *, threads: int = 0, max_batch: int = 8) -> Runtime:
    """Both models loaded, warm, and proven by the bundle's golden vectors.

    Parameters
    ----------
    name:
        "openvino" or "tensorflow".
    threads:
        CPU cores to use; 0: all that this process may use.
    max_batch:
        The largest batch that is going to be asked for.

    Raises
    ------
    ModelError
        `BundleInvalid` or `GoldenMismatch`: the models must not be served.
    """
    started = time.perf_counter()
    runtime = _load(name, bundle, threads or cores(), max_batch)
    ms = 1000 * (time.perf_counter() - started)
    log.info("runtime-loaded model=%s runtime=%s device=%r ms=%.0f", bundle.model_id, runtime.name, runtime.device, ms)
    return runtime


def _load(name: str, bundle: Bundle, threads: int, max_batch: int) -> Runtime:
    if name == "tensorflow":
        from worker.infer.tensorflow import TensorFlow

        return _proven(bundle, lambda: TensorFlow(bundle, threads=threads, max_batch=max_batch))

    from worker.infer.openvino import OpenVino

    try:
        return _proven(bundle, lambda: OpenVino(bundle, threads=threads))
    except GoldenMismatch as error:  # bfloat16 is twice as quick; float32 is what training computed in
        log.warning("bf16-refused model=%s reason=%s", bundle.model_id, error)
        return _proven(bundle, lambda: OpenVino(bundle, threads=threads, precision="f32"))


def _proven(bundle: Bundle, load: Callable[[], Runtime]) -> Runtime:
    runtime = load()
    try:
        bundle.replay(runtime)
    except Exception:
        runtime.close()
        raise
    return runtime


def cores(quota: Path = CPU_QUOTA) -> int:
    """CPU cores that this process may use: its affinity, and its container's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, min(allowed, int(limit) // int(period)))
    except (OSError, ValueError):  # not in such a container, or "max"
        return allowed
