from __future__ import annotations

import math
import threading
from concurrent.futures import wait

import numpy as np
import pytest

from schemas.card import Calibration, model_id
from schemas.decision import Urgency
from schemas.errors import ModelError, OutOfMemory
from schemas.findings import LABELS, Label
from tests.unit.infer.bundles import OUTPUTS, FakeRuntime, card, film
from worker.infer.engine import LANES, Engine
from worker.ports import Logits, Runtime


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


class Held:
    """An engine whose lanes are all busy with one film each, so that what is submitted now must queue."""

    def __init__(self, runtime: FakeRuntime, **options: object) -> None:
        self.runtime = runtime
        runtime.free.clear()
        self.engine = Engine(runtime, card(), **options)  # type: ignore[arg-type]
        self.first = []
        for _ in range(LANES):
            self.first.append(self.engine.submit(film(0)))
            assert runtime.begun.acquire(timeout=30)
        assert runtime.batches == [[0]] * LANES

    def release(self) -> list[list[int]]:
        """Let everything run to its end; the batches after the first ones."""
        self.runtime.free.set()
        self.engine.close()
        return self.runtime.batches[LANES:]


def test_a_film_is_answered_with_calibrated_probabilities_of_every_output() -> None:
    calibration = {name: Calibration(scale=2.0, offset=k / 10) for k, name in enumerate(OUTPUTS)}
    described = card(calibration=calibration, files={"a": "b"})
    engine = Engine(FakeRuntime(), described)
    prediction = engine.submit(film(50)).result(30)
    engine.close()
    assert prediction.model_id == model_id(described)
    assert prediction.binary == pytest.approx(sigmoid(2 * 0.5))
    assert list(prediction.findings) == list(LABELS)
    for k, label in enumerate(LABELS):
        assert prediction.findings[label] == pytest.approx(sigmoid(2 * (0.5 + k / 10) + (k + 1) / 10), abs=1e-6)
    assert set(prediction.timings_ms) == {"queue", "infer"}
    assert all(t >= 0 for t in prediction.timings_ms.values())


def test_extreme_logits_are_probabilities_still() -> None:
    engine = Engine(FakeRuntime(), card(calibration=dict.fromkeys(OUTPUTS, Calibration(scale=1e6, offset=-1e6))))
    assert engine.submit(film(0)).result(30).binary == pytest.approx(0.0, abs=1e-300)
    assert engine.submit(film(255)).result(30).binary == 1.0
    engine.close()


def test_what_waits_is_batched_and_the_most_urgent_goes_first() -> None:
    held = Held(FakeRuntime(best_batch=3))
    order = [(1, Urgency.ROUTINE), (2, Urgency.URGENT), (3, Urgency.STAT), (4, Urgency.ROUTINE), (5, Urgency.STAT)]
    answers = {grey: held.engine.submit(film(grey), urgency) for grey, urgency in order}
    batches = held.release()
    assert sorted(map(sorted, batches)) == [[1, 4], [2, 3, 5]]
    assert [3, 5, 2] in batches  # arrival decides among equals
    for grey, future in answers.items():
        assert future.result().binary == pytest.approx(sigmoid(grey / 100), abs=1e-6)


@pytest.mark.parametrize(("best_batch", "max_batch", "largest"), [(8, 3, 3), (2, 8, 2), (8, 1, 1)])
def test_a_batch_is_bounded_by_the_setting_and_by_the_runtime(best_batch: int, max_batch: int, largest: int) -> None:
    held = Held(FakeRuntime(best_batch=best_batch), max_batch=max_batch)
    for grey in range(1, 8):
        held.engine.submit(film(grey))
    assert max(map(len, held.release())) == largest


def test_a_lone_film_does_not_wait_for_others() -> None:
    engine = Engine(FakeRuntime(), card(), gather_ms=3_600_000)
    assert engine.submit(film(1)).result(30)
    engine.close()


def test_a_batch_waits_for_expected_films() -> None:
    runtime = FakeRuntime(best_batch=2)
    engine = Engine(runtime, card(), gather_ms=3_600_000)
    with engine.expect():
        first = engine.submit(film(1))
        assert not runtime.begun.acquire(timeout=0.05)
        second = engine.submit(film(2))
        assert first.result(30) and second.result(30)  # full: no need to wait for the end of `with`
    assert runtime.batches == [[1, 2]]
    engine.close()


def test_a_batch_does_not_wait_for_a_film_that_never_comes() -> None:
    runtime = FakeRuntime()
    engine = Engine(runtime, card(), gather_ms=3_600_000)
    with pytest.raises(OSError, match="undecodable"), engine.expect():
        film_before = engine.submit(film(1))
        raise OSError("undecodable")
    assert film_before.result(30)
    with engine.expect():
        pass
    assert engine.submit(film(2)).result(30)
    engine.close()


def test_the_wait_for_expected_films_ends() -> None:
    engine = Engine(FakeRuntime(), card(), gather_ms=5)
    with engine.expect():
        assert engine.submit(film(1)).result(30)
    engine.close()


def test_a_fault_reaches_the_films_of_its_batch_and_nobody_else() -> None:
    held = Held(FakeRuntime(best_batch=2, fault=lambda films: RuntimeError("kernel") if 13 in films else None))
    unlucky = [held.engine.submit(film(grey), Urgency.STAT) for grey in (13, 14)]
    lucky = [held.engine.submit(film(grey)) for grey in (15, 16, 17)]
    held.release()
    for future in unlucky:
        with pytest.raises(RuntimeError, match="kernel"):
            future.result()
    assert all(future.result() for future in lucky + held.first)
    assert held.engine.counts.failed == 2
    assert held.engine.counts.films == LANES + 3


def test_every_lane_outlives_faults() -> None:
    engine = Engine(FakeRuntime(fault=lambda films: RuntimeError("kernel") if 13 in films else None), card())
    for _ in range(3 * LANES):
        with pytest.raises(RuntimeError, match="kernel"):
            engine.submit(film(13)).result(30)
    assert engine.submit(film(1)).result(30)
    engine.close()


def test_a_logit_that_is_not_a_number_fails_its_film_only() -> None:
    class Broken(FakeRuntime):
        def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:
            logits = super().run(batch)
            logits.findings[batch[:, 0, 0, 0] == 13, 7] = np.nan
            return logits

    held = Held(Broken(best_batch=3))
    answers = [held.engine.submit(film(grey)) for grey in (12, 13, 14)]
    assert held.release() == [[12, 13, 14]]
    with pytest.raises(ModelError, match="not a number"):
        answers[1].result()
    assert answers[0].result() and answers[2].result()


def test_too_few_answers_are_a_fault() -> None:
    class Short(FakeRuntime):
        def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:
            return super().run(batch[:1])

    held = Held(Short(best_batch=2))
    answers = [held.engine.submit(film(grey)) for grey in (1, 2)]
    held.release()
    for future in answers:
        with pytest.raises(ModelError, match="1 answers to 2 films"):
            future.result()


def test_out_of_memory_halves_the_batch_for_good() -> None:
    held = Held(FakeRuntime(best_batch=8, fault=lambda films: OutOfMemory("full") if len(films) > 2 else None))
    answers = [held.engine.submit(film(grey)) for grey in range(1, 9)]
    held.runtime.free.set()
    wait(answers, timeout=30)
    assert [f.result().binary for f in answers] == pytest.approx([sigmoid(g / 100) for g in range(1, 9)], abs=1e-6)
    before = len(held.runtime.batches)
    assert held.engine.counts.halvings == 3  # 8 → 4 + 4 → 2 + 2, 2 + 2
    later = [held.engine.submit(film(grey)) for grey in range(20, 30)]
    wait(later, timeout=30)
    assert max(map(len, held.runtime.batches[before:])) <= 2
    held.engine.close()


def test_a_film_that_does_not_fit_alone_goes_to_the_cpu() -> None:
    cpu = FakeRuntime()
    made: list[FakeRuntime] = []

    def make() -> Runtime:
        made.append(cpu)
        return cpu

    gpu = FakeRuntime(best_batch=4, fault=lambda films: OutOfMemory("full"))
    held = Held(gpu, fallback=make)
    answers = [held.engine.submit(film(grey)) for grey in (1, 2, 3, 4)]
    held.release()
    assert [f.result().binary for f in answers] == pytest.approx([sigmoid(g / 100) for g in (1, 2, 3, 4)], abs=1e-6)
    assert held.engine.counts.cpu_films == LANES + 4
    assert made == [cpu]
    assert all(len(films) == 1 for films in cpu.batches)
    assert cpu.closed and gpu.closed


def test_out_of_memory_without_a_fallback_is_the_films_answer() -> None:
    engine = Engine(FakeRuntime(fault=lambda films: OutOfMemory("full")), card())
    with pytest.raises(OutOfMemory):
        engine.submit(film(1)).result(30)
    engine.close()


def test_a_fallback_that_cannot_be_made_is_the_films_answer() -> None:
    def make() -> Runtime:
        raise ModelError("no OpenVINO here")

    engine = Engine(FakeRuntime(fault=lambda films: OutOfMemory("full")), card(), fallback=make)
    for _ in range(2):
        with pytest.raises(ModelError, match="no OpenVINO"):
            engine.submit(film(1)).result(30)
    engine.close()


def test_close_answers_what_waits_then_refuses() -> None:
    held = Held(FakeRuntime(best_batch=1))
    answers = [held.engine.submit(film(grey)) for grey in range(1, 6)]
    closing = threading.Thread(target=held.engine.close)
    closing.start()
    held.runtime.free.set()
    closing.join(30)
    assert not closing.is_alive()
    assert all(future.done() and future.result() for future in answers)
    assert held.runtime.closed
    with pytest.raises(ModelError, match="closed"):
        held.engine.submit(film(1))
    held.engine.close()  # twice is no harm


def test_close_does_not_wait_for_expected_films() -> None:
    engine = Engine(FakeRuntime(), card(), gather_ms=3_600_000)
    with engine.expect():
        answer = engine.submit(film(1))
        engine.close()
    assert answer.result()


def test_a_cancelled_film_is_not_read() -> None:
    held = Held(FakeRuntime(best_batch=1))
    gone, stays = held.engine.submit(film(1)), held.engine.submit(film(2))
    assert gone.cancel()
    assert held.release() == [[2]]
    assert stays.result()


@pytest.mark.parametrize(
    "tensor",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)],
)
def test_a_tensor_of_another_shape_is_refused_at_the_door(tensor: np.ndarray) -> None:
    engine = Engine(FakeRuntime(), card())
    with pytest.raises(ValueError, match="uint8"):
        engine.submit(tensor)
    engine.close()


def test_many_threads_each_get_their_own_films_answer() -> None:
    engine = Engine(FakeRuntime(), card())
    wrong: list[int] = []

    def send(base: int) -> None:
        for grey in range(base, 250, 8):
            p = engine.submit(film(grey)).result(30)
            if abs(p.findings[Label.NO_FINDING] - sigmoid(grey / 100 + 1.4)) > 1e-6:
                wrong.append(grey)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert wrong == []
    assert engine.counts.films == 250


def test_explain_gives_the_maps_past_the_queue() -> None:
    class WithMaps(FakeRuntime):
        def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:
            logits = super().run(batch)
            return (
                Logits(logits.binary, logits.findings, np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 15)))
                if maps
                else logits
            )

    engine = Engine(WithMaps(), card())
    maps = engine.explain(film(1)).finding_maps
    assert maps is not None and maps.shape == (1, 2, 2, 15)
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.explain(film(1))
