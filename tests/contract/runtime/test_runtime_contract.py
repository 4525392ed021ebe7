"""What the engine may expect of every runtime, and that all of them say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.contract.runtime.drawn import films
from worker.infer.bundle import TOLERANCE, Bundle
from worker.infer.choose import load_runtime
from worker.infer.engine import Engine
from worker.infer.openvino import OpenVino
from worker.ports import Logits, Runtime

RUNTIMES: dict[str, Callable[[Bundle], Runtime]] = {
    "openvino": lambda bundle: load_runtime("openvino", bundle, threads=2),
    "openvino-f32": lambda bundle: OpenVino(bundle, threads=2, precision="f32"),
    "openvino-streams": lambda bundle: OpenVino(bundle, threads=16),
    "tensorflow": lambda bundle: load_runtime("tensorflow", bundle, threads=2, max_batch=4),
}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Runtime]:
    made = RUNTIMES[request.param](bundle)
    yield made
    made.close()


def batch_of(bundle: Bundle, count: int) -> np.ndarray:
    return films(bundle.card.input_size, count)


def columns(logits: Logits) -> np.ndarray:
    return np.column_stack((logits.binary, logits.findings))


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert runtime.name in {"openvino", "tensorflow"}
    assert runtime.device.split()[0] in {"CPU", "GPU"}
    assert runtime.best_batch >= 1


def test_every_runtime_gives_the_probabilities_of_training(runtime: Runtime, bundle: Bundle) -> None:
    """Golden logits are Keras' own: within 0.01 of each other, and flags equal, as `replay` demands."""
    bundle.replay(runtime)


def test_the_proof_can_fail(runtime: Runtime, bundle: Bundle) -> None:
    """The answers depend on the film: those of the films in another order would not pass."""
    logits = runtime.run(batch_of(bundle, 12))
    p = bundle.platt.probabilities(logits)
    assert (p.max(axis=0) - p.min(axis=0) > 20 * TOLERANCE).all()
    assert (np.abs(p - np.roll(p, 1, axis=0)).max(axis=0) > 10 * TOLERANCE).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_shapes(runtime: Runtime, bundle: Bundle, count: int) -> None:
    logits = runtime.run(batch_of(bundle, count))
    assert (logits.binary.shape, logits.findings.shape) == ((count,), (count, 15))
    assert logits.binary.dtype == logits.findings.dtype == np.float32
    assert logits.binary_maps is None
    assert logits.finding_maps is None


def test_a_film_is_read_alike_in_any_company(runtime: Runtime, bundle: Bundle) -> None:
    batch = batch_of(bundle, 5)
    together = columns(runtime.run(batch))
    alone = np.concatenate([columns(runtime.run(batch[i : i + 1])) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_maps_are_exact(runtime: Runtime, bundle: Bundle) -> None:
    """Zhou et al., CVPR 2016: with global average pooling, the mean of a map is its logit."""
    logits = runtime.run(batch_of(bundle, 3), maps=True)
    assert logits.binary_maps is not None
    assert logits.finding_maps is not None
    side = bundle.card.input_size // 32
    assert logits.binary_maps.shape == (3, side, side, 1)
    assert logits.finding_maps.shape == (3, side, side, 15)
    np.testing.assert_allclose(logits.finding_maps.mean(axis=(1, 2)), logits.findings, atol=0.05)
    np.testing.assert_allclose(logits.binary_maps.mean(axis=(1, 2))[:, 0], logits.binary, atol=0.05)
    assert logits.finding_maps.std(axis=(1, 2)).min() > 0


def test_threads_get_their_own_answers(runtime: Runtime, bundle: Bundle) -> None:
    batch = batch_of(bundle, 8)
    serial = columns(runtime.run(batch))
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda i: columns(runtime.run(batch[i % 8 : i % 8 + 1]))[0], range(48)))
    for i, row in enumerate(parallel):
        np.testing.assert_allclose(row, serial[i % 8], atol=1e-3)


def test_a_batch_of_another_shape_is_refused_and_forgotten(runtime: Runtime, bundle: Bundle) -> None:
    good = batch_of(bundle, 2)
    before = columns(runtime.run(good))
    for _ in range(5):  # more often than there are lanes to lose
        for wrong in (np.zeros((2, 40, 40, 3), np.uint8), good.astype(np.float32), good[0]):
            with pytest.raises(ValueError, match="the model takes uint8"):
                runtime.run(wrong)
    np.testing.assert_allclose(columns(runtime.run(good)), before, atol=1e-3)


def test_the_batch_may_be_read_only_or_not_contiguous(runtime: Runtime, bundle: Bundle) -> None:
    batch = batch_of(bundle, 4)
    strided = np.repeat(batch, 2, axis=0)[::2]
    mirrored = batch[:, :, ::-1][:, :, ::-1]
    batch.flags.writeable = False
    for other in (strided, mirrored):
        np.testing.assert_allclose(columns(runtime.run(other)), columns(runtime.run(batch)), atol=1e-3)
    flipped = columns(runtime.run(batch[:, :, ::-1]))
    np.testing.assert_allclose(flipped, columns(runtime.run(np.ascontiguousarray(batch[:, :, ::-1]))), atol=1e-3)


def test_behind_the_engine(runtime: Runtime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "close", lambda: None)  # the other tests need it still
    engine = Engine(runtime, bundle.card)
    predictions = [future.result() for future in [engine.submit(film) for film in batch_of(bundle, 12)]]
    engine.close()
    with np.load(bundle.folder / "golden.npz") as golden:
        expected = bundle.platt.probabilities(Logits(golden["binary"], golden["findings"]))
    got = np.array([[p.binary, *p.findings.values()] for p in predictions])
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_bfloat16_is_what_serves_where_the_processor_has_it(bundle: Bundle) -> None:
    has_it = "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    runtime = load_runtime("openvino", bundle, threads=2)
    assert runtime.device == ("CPU bf16" if has_it else "CPU f32")
    runtime.close()
