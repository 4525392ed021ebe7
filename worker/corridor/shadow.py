"""The shadow: a candidate that reads what the live model has read, when there is nothing else to do. Nobody hears it.

A film is offered when its live answer is recorded. It waits in a short queue, and is read while the live model has no
film in hand; where films come too fast for that, the oldest are dropped and counted. So the shadow holds nothing up:
what it costs is the core that it computes on, which threads of the lowest priority share with nobody who wants it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from schemas.decision import Decision
from schemas.errors import RecordError
from schemas.image import GrayImage, Tensor
from schemas.outcome import Read
from schemas.policy import InForce
from schemas.prediction import Prediction
from worker.corridor.live import Reader
from worker.decide.policy import decide
from worker.tensor.recipe import to_tensor

log = logging.getLogger("hilum.shadow")

BEHIND: Final = 32  # films that wait; tensors of 150 kB, or films of some MB where the models take other sizes
LOOK: Final = 0.5  # seconds between looks whether to stop, while it waits
LOWEST: Final = 19  # nice


class Keep(Protocol):
    """Where what it says is kept: `worker.record.shadow.Shadows.keep`."""

    def __call__(
        self, job: int, said: tuple[Prediction, Decision], aloud: tuple[Prediction, Decision], now: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Film:
    job: int
    pixels: GrayImage | None
    tensor: Tensor | None
    aloud: Read


class Shadow:
    """A candidate at work.

    Parameters
    ----------
    model_id:
        Of the candidate.
    load:
        Makes its reader; called in the shadow's own thread, of the lowest priority, as every thread is that it starts.
    quiet:
        Waits so many seconds for the live model to have nothing in hand; whether it is so.
    """

    def __init__(
        self,
        model_id: str,
        *,
        load: Callable[[], Reader],
        keep: Keep,
        policy: Callable[[Mapping[str, float]], InForce],
        quiet: Callable[[float], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self.model_id = model_id
        self.fault = ""
        self.reader: Reader | None = None
        self.read = self.dropped = 0
        self._load, self._keep, self._policy, self._quiet, self._clock = load, keep, policy, quiet, clock
        self._films: deque[_Film] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Load the model, then read; `fault` says why not."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the film in hand, and no more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def offer(self, job: int, pixels: GrayImage, tensor: Tensor, aloud: Read) -> None:
        """A film that the live model has read. Never waits."""
        with self._changed:
            if self.reader is None or self._stopping:
                return
            fits = tensor.shape[0] == self.reader.card.input_size
            self._films.append(_Film(job, None if fits else pixels, tensor if fits else None, aloud))
            if len(self._films) > BEHIND:
                self._films.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        try:
            reader = self._load()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            log.error("shadow-refused model=%s error=%s", self.model_id, type(error).__name__, exc_info=True)
            return
        log.info("shadow-reads model=%s", self.model_id)
        with self._changed:
            self.reader = reader
        try:
            while (film := self._next()) is not None:
                self._one(reader, film)
        finally:
            reader.engine.close()
            log.info("shadow-ends model=%s read=%d dropped=%d", self.model_id, self.read, self.dropped)

    def _next(self) -> _Film | None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._films or self._stopping, LOOK)
                if self._stopping:
                    return None
                there = bool(self._films)
            if there and self._quiet(LOOK):
                with self._changed:
                    if self._films:
                        return self._films.popleft()

    def _one(self, reader: Reader, film: _Film) -> None:
        try:
            tensor = film.tensor
            if tensor is None:
                assert film.pixels is not None  # noqa: S101  one of them is kept
                tensor = to_tensor(film.pixels, reader.card.input_size)
            prediction = reader.engine.submit(tensor).result()
            in_force = self._policy(reader.card.thresholds)
            decision = decide(prediction, in_force.policy, in_force.operating_points)
            aloud = film.aloud.prediction, film.aloud.decision
            self._keep(film.job, (prediction, decision), aloud, self._clock())
            self.read += 1
        except RecordError as error:  # the comparison lacks a film, no more
            self.dropped += 1
            log.warning("shadow-not-kept job=%s error=%s", film.job, error)
        except Exception:
            self.dropped += 1
            log.error("shadow-failed job=%s model=%s", film.job, self.model_id, exc_info=True)
