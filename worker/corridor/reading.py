"""Story two: a film is claimed, decoded, read by both models, decided and recorded (door 2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from schemas.decision import Policy
from schemas.errors import LeaseLost, NotAnalysable, RecordError
from schemas.gate import GateRules
from schemas.not_analysed import NotAnalysed
from schemas.outcome import FilmOutcome, ModelRef, NotRead, Read, Route
from worker.corridor.bell import Bell
from worker.corridor.insist import insist
from worker.decide.policy import decide
from worker.decide.study import settle
from worker.decode.film import read_film
from worker.infer.engine import Engine
from worker.ports import Spool
from worker.record.jobs import Job, Jobs
from worker.tensor.recipe import to_tensor

log = logging.getLogger("hilum.reading")


@dataclass(frozen=True, kw_only=True)
class ReadingRules:
    """How long a reader may hold a film, how often it is tried, and how often idle readers look for work."""

    lease: timedelta = timedelta(seconds=60)
    attempts: int = 3
    again_every: float = 0.5  # seconds, where the record did not take what was read
    look_every: float = 0.25  # seconds; work from this process rings the bell, work from others waits for this


class Reading:
    """Readers in threads: each takes one film at a time; the engine gathers their films into batches."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        spool: Spool,
        engine: Engine,
        gate: GateRules,
        policy: Policy,
        operating_points: Mapping[str, float],
        model: ModelRef,
        input_size: int,
        route: Route,
        work: Bell,
        news: Bell,
        owner: str,
        rules: ReadingRules,
        clock: Callable[[], datetime],
        readers: int,
    ) -> None:
        self._jobs, self._spool, self._engine = jobs, spool, engine
        self._gate, self._policy, self._operating_points = gate, policy, operating_points
        self._model, self._input_size, self._route = model, input_size, route
        self._work, self._news = work, news
        self._owner, self._rules, self._clock = owner, rules, clock
        self._in_hand: set[int] = set()
        self._hand = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._run, name=f"reader-{n}", daemon=True) for n in range(readers)),
            threading.Thread(target=self._keep_leases, name="leases", daemon=True),
        ]

    def start(self) -> None:
        """Start the readers."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the films in hand and take no more; a film that outlasts `timeout` is left to its lease."""
        self._stopping.set()
        self._work.ring()
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._work.rung
            try:
                claimed = self._jobs.claim(self._owner, 1, self._rules.lease, self._clock())
                for job in claimed:
                    self._hold(job)
            except RecordError as error:
                log.error("record-unavailable error=%s", error)
                self._stopping.wait(1.0)
                continue
            except Exception:
                log.error("reader-failed", exc_info=True)
                self._stopping.wait(1.0)
                continue
            if not claimed:
                self._work.wait(seen, self._rules.look_every)

    def _hold(self, job: Job) -> None:
        with self._hand:
            self._in_hand.add(job.id)
        try:
            self._settle(job)
        except LeaseLost:
            log.warning("lease-lost job=%s", job.id)  # its new holder reads the same bytes
        finally:
            with self._hand:
                self._in_hand.discard(job.id)

    def _settle(self, job: Job) -> None:
        began = time.perf_counter()
        try:
            outcome = self._read(job)
        except NotAnalysable as error:
            outcome = NotRead(code=error.code, detail=error.detail)
        except Exception as error:
            log.warning("read-failed job=%s attempt=%d error=%s", job.id, job.attempt, type(error).__name__)
            log.debug("read-failed job=%s", job.id, exc_info=True)
            if job.attempt < self._rules.attempts:
                wait = timedelta(seconds=2.0**job.attempt)
                self._jobs.release(job, self._owner, self._clock() + wait, type(error).__name__)
                return
            outcome = NotRead(code=NotAnalysed.MODEL_FAILED, detail=type(error).__name__)
        concluded = insist(
            lambda: self._jobs.conclude(job, self._owner, outcome, settle, self._route, self._model, self._clock()),
            seconds=self._rules.lease.total_seconds(),
            again_every=self._rules.again_every,
            stopping=self._stopping,
        )
        if concluded.revision is not None:
            self._news.ring()
        log.info(
            "read job=%s outcome=%s urgency=%s revision=%s ms=%.1f",
            job.id,
            outcome.code.value if isinstance(outcome, NotRead) else "read",
            concluded.urgency.name,
            concluded.revision,
            1000 * (time.perf_counter() - began),
        )

    def _read(self, job: Job) -> FilmOutcome:
        started = time.perf_counter()
        with self._engine.expect():
            film = read_film(self._spool.path_of(job.path), self._gate)
            decoded = time.perf_counter()
            tensor = to_tensor(film.pixels, self._input_size)
            made = time.perf_counter()
            answer = self._engine.submit(tensor, job.order_urgency)
        prediction = answer.result()
        timings = {
            "decode": 1000 * (decoded - started),
            "tensor": 1000 * (made - decoded),
            **prediction.timings_ms,
        }
        prediction = replace(prediction, timings_ms=timings)
        decision = decide(prediction, self._policy, self._operating_points)
        return Read(prediction=prediction, decision=decision, remarks=film.remarks)

    def _keep_leases(self) -> None:
        while not self._stopping.wait(self._rules.lease.total_seconds() / 3):
            with self._hand:
                held = sorted(self._in_hand)
            if held:
                try:
                    self._jobs.heartbeat(held, self._owner, self._rules.lease, self._clock())
                except Exception:
                    log.error("heartbeat-failed", exc_info=True)
