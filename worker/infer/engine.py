"""Micro-batches in front of a runtime: the urgent film first, a lone film at once, one bad batch harms nobody else."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.card import ModelCard, model_id
from schemas.decision import Urgency
from schemas.errors import ModelError, OutOfMemory
from schemas.findings import LABELS
from schemas.image import Tensor
from schemas.prediction import Prediction
from worker.infer.calibrate import Platt
from worker.ports import Logits, Runtime

log = logging.getLogger("hilum.infer")

LANES: Final = 2  # batches in hand at once: the next one is there when the runtime is done, and no more is committed


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineCounts:
    """Since the engine started."""

    films: int = 0  # answered with a prediction
    batches: int = 0
    failed: int = 0  # films answered with an error
    halvings: int = 0  # times that a batch did not fit in memory
    cpu_films: int = 0  # films that did not fit alone and went to the fallback


@dataclass(order=True, slots=True)
class _Waiting:
    rank: tuple[int, int]  # most urgent first, then in order of arrival
    tensor: Tensor = field(compare=False)
    submitted: float = field(compare=False)
    answer: Future[Prediction] = field(compare=False)


class Engine:
    """Takes films from any number of threads and feeds the runtime.

    A film that comes alone is begun at once. While batches are in hand, films queue up, and the next batch is what
    waits then. Only where `expect` says that more films are on their way, and the runtime gains from a larger batch,
    does a batch wait for them, `gather_ms` at most.

    Parameters
    ----------
    runtime:
        Loaded and proven; the engine closes it.
    card:
        Of the bundle that the runtime serves: calibration, input size, model id.
    max_batch:
        Upper bound of a batch; the runtime's own `best_batch` is another.
    gather_ms:
        The longest wait for films that are expected.
    fallback:
        Makes the runtime (on the CPU) for films that do not fit into the memory of `runtime` one by one.
    """

    def __init__(
        self,
        runtime: Runtime,
        card: ModelCard,
        *,
        max_batch: int = 8,
        gather_ms: float = 2.0,
        fallback: Callable[[], Runtime] | None = None,
    ) -> None:
        self._runtime, self._make_fallback = runtime, fallback
        self._platt = Platt(card)
        self._model_id = model_id(card)
        self._shape = (card.input_size, card.input_size, 3)
        self._limit = max(1, min(max_batch, runtime.best_batch))
        self._gather = gather_ms / 1000.0
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._arrivals = itertools.count()
        self._expected = 0
        self._closed = False
        self._counts: dict[str, int] = {}
        self._fallback: Runtime | None = None
        self._fallback_lock = threading.Lock()
        self._lanes = [threading.Thread(target=self._lane, name=f"hilum-infer-{i}", daemon=True) for i in range(LANES)]
        for lane in self._lanes:
            lane.start()

    @property
    def model_id(self) -> str:
        """Content address of the bundle that is served."""
        return self._model_id

    @property
    def counts(self) -> EngineCounts:
        """A snapshot."""
        with self._changed:
            return EngineCounts(**self._counts)

    @contextmanager
    def expect(self) -> Iterator[None]:
        """Around decoding and `submit`: a film is on its way, a batch may wait a moment for it."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def submit(self, tensor: Tensor, urgency: Urgency = Urgency.ROUTINE) -> Future[Prediction]:
        """Queue one film, uint8 (size, size, 3).

        Returns
        -------
            A future: the prediction, or what the runtime raised for this film's batch. It can be cancelled while the
            film waits. `timings_ms` holds "queue" (until its batch began) and "infer".

        Raises
        ------
        ValueError
            The tensor has another shape or dtype.
        ModelError
            The engine is closed.
        """
        self._must_fit(tensor)
        answer: Future[Prediction] = Future()
        with self._changed:
            if self._closed:
                raise ModelError("the engine is closed")
            rank = (-int(urgency), next(self._arrivals))
            heapq.heappush(self._queue, _Waiting(rank, tensor, time.perf_counter(), answer))
            self._changed.notify_all()
        return answer

    def explain(self, tensor: Tensor) -> Logits:
        """One film with its class activation maps, past the queue; for research mode. Raises as `submit` does."""
        self._must_fit(tensor)
        with self._changed:
            if self._closed:
                raise ModelError("the engine is closed")
        return self._runtime.run(tensor[np.newaxis], maps=True)

    def close(self) -> None:
        """Take no more films, answer those that wait, release the runtimes."""
        with self._changed:
            already, self._closed = self._closed, True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()
        if not already:
            self._runtime.close()
            if self._fallback is not None:
                self._fallback.close()

    def _must_fit(self, tensor: Tensor) -> None:
        if tensor.shape != self._shape or tensor.dtype != np.uint8:
            raise ValueError(f"the model takes uint8 {self._shape}, not {tensor.dtype} {tensor.shape}")

    def _lane(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._gather > 0.0 and not self._closed:
                    self._changed.wait_for(self._gathered, timeout=self._gather)
                if not self._queue:  # the other lane has taken it, or all is done
                    if self._closed:
                        return
                    continue
                batch = [heapq.heappop(self._queue) for _ in range(min(self._limit, len(self._queue)))]
            films = [film for film in batch if film.answer.set_running_or_notify_cancel()]
            if films:
                self._serve(films)

    def _gathered(self) -> bool:
        return len(self._queue) >= self._limit or self._expected == 0 or not self._queue or self._closed

    def _serve(self, films: list[_Waiting]) -> None:
        began = time.perf_counter()
        try:
            probabilities = self._platt.probabilities(self._run(films))
            if len(probabilities) != len(films):
                raise ModelError(f"the runtime gave {len(probabilities)} answers to {len(films)} films")
        except OutOfMemory as error:
            half = len(films) // 2
            if half == 0:
                self._fail(films, error)
                return
            self._halve(half)
            self._serve(films[:half])
            self._serve(films[half:])
        except Exception as error:  # noqa: BLE001  a runtime's fault is the answer to this batch, not the end of the lane
            self._fail(films, error)
        else:
            self._answer(films, probabilities, 1000.0 * (time.perf_counter() - began))

    def _run(self, films: list[_Waiting]) -> Logits:
        """Raises `OutOfMemory` for a batch that can be halved, and for a single film when there is no fallback."""
        batch = np.stack([film.tensor for film in films])
        try:
            return self._runtime.run(batch)
        except OutOfMemory:
            if len(films) > 1 or self._make_fallback is None:
                raise
        with self._fallback_lock:
            if self._fallback is None:
                log.error("out-of-memory-cpu model=%s", self._model_id)
                self._fallback = self._make_fallback()
        logits = self._fallback.run(batch)
        self._count(cpu_films=1)
        return logits

    def _answer(self, films: list[_Waiting], probabilities: NDArray[np.float64], infer_ms: float) -> None:
        answered = time.perf_counter()
        self._count(batches=1)
        for film, row in zip(films, probabilities, strict=True):
            if not np.isfinite(row).all():
                self._fail([film], ModelError("the model answered with what is not a number"))
                continue
            binary, *findings = row.tolist()
            self._count(films=1)
            film.answer.set_result(
                Prediction(
                    model_id=self._model_id,
                    binary=binary,
                    findings=dict(zip(LABELS, findings, strict=True)),
                    timings_ms={"queue": 1000.0 * (answered - film.submitted) - infer_ms, "infer": infer_ms},
                )
            )

    def _fail(self, films: list[_Waiting], error: Exception) -> None:
        log.error("batch-failed films=%d error=%s", len(films), type(error).__name__)
        self._count(failed=len(films))
        for film in films:
            film.answer.set_exception(error)

    def _halve(self, half: int) -> None:
        with self._changed:
            self._limit = min(self._limit, half)
        log.warning("out-of-memory-halved batch=%d", half)
        self._count(halvings=1)

    def _count(self, **more: int) -> None:
        with self._changed:
            for name, n in more.items():
                self._counts[name] = self._counts.get(name, 0) + n
