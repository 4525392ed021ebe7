"""Story two: a film is claimed, decoded, read by both models, decided and recorded (door 2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from schemas.errors import LeaseLost, NotAnalysable, RecordError
from schemas.gate import GateRules
from schemas.image import GrayImage, Tensor
from schemas.not_analysed import NotAnalysed
from schemas.outcome import FilmOutcome, NotRead, Read, Route
from schemas.policy import InForce
from worker.corridor.bell import Bell
from worker.corridor.insist import insist
from worker.corridor.live import Live, Reader
from worker.decide.policy import decide
from worker.decide.study import settle
from worker.decode.film import read_film, scanner_of
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


@dataclass(frozen=True, slots=True)
class _Seen:
    """A film that was read, and what it was read from."""

    outcome: Read
    pixels: GrayImage
    tensor: Tensor


class Reading:
    """Readers in threads: each takes one film at a time; the engine gathers their films into batches.

    `policy` is asked for each film, with the operating points of the card of the model that read it.
    """

    def __init__(
        self,
        *,
        jobs: Jobs,
        spool: Spool,
        live: Live,
        gate: GateRules,
        policy: Callable[[Mapping[str, float]], InForce],
        route: Route,
        work: Bell,
        news: Bell,
        owner: str,
        rules: ReadingRules,
        clock: Callable[[], datetime],
        readers: int,
    ) -> None:
        self._jobs, self._spool, self._live = jobs, spool, live
        self._gate, self._policy, self._route = gate, policy, route
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
            with self._live.take() as reader:
                self._settle(job, reader)
        except LeaseLost:
            log.warning("lease-lost job=%s", job.id)  # its new holder reads the same bytes
        finally:
            with self._hand:
                self._in_hand.discard(job.id)

    def _settle(self, job: Job, reader: Reader) -> None:
        began = time.perf_counter()
        seen: _Seen | None = None
        outcome: FilmOutcome
        try:
            seen = self._read(job, reader)
            outcome = seen.outcome
        except NotAnalysable as error:
            outcome = NotRead(code=error.code, detail=error.detail, scanner=error.scanner)
        except Exception as error:
            log.warning("read-failed job=%s attempt=%d error=%s", job.id, job.attempt, type(error).__name__)
            log.debug("read-failed job=%s", job.id, exc_info=True)
            if job.attempt < self._rules.attempts:
                wait = timedelta(seconds=2.0**job.attempt)
                self._jobs.release(job, self._owner, self._clock() + wait, type(error).__name__)
                return
            outcome = NotRead(code=NotAnalysed.MODEL_FAILED, detail=type(error).__name__)
        concluded = insist(
            lambda: self._jobs.conclude(job, self._owner, outcome, settle, self._route, reader.model, self._clock()),
            seconds=self._rules.lease.total_seconds(),
            again_every=self._rules.again_every,
            stopping=self._stopping,
        )
        if concluded.revision is not None:
            self._news.ring()
        shadow = self._live.shadow
        if seen is not None and shadow is not None:
            shadow.offer(job.id, seen.pixels, seen.tensor, seen.outcome)
        log.info(
            "read job=%s outcome=%s urgency=%s revision=%s ms=%.1f",
            job.id,
            outcome.code.value if isinstance(outcome, NotRead) else "read",
            concluded.urgency.name,
            concluded.revision,
            1000 * (time.perf_counter() - began),
        )

    def _read(self, job: Job, reader: Reader) -> _Seen:
        started = time.perf_counter()
        with reader.engine.expect():
            film = read_film(self._spool.path_of(job.path), self._gate)
            decoded = time.perf_counter()
            tensor = to_tensor(film.pixels, reader.card.input_size)
            made = time.perf_counter()
            answer = reader.engine.submit(tensor, job.order_urgency)
        prediction = answer.result()
        timings = {
            "decode": 1000 * (decoded - started),
            "tensor": 1000 * (made - decoded),
            **prediction.timings_ms,
        }
        prediction = replace(prediction, timings_ms=timings)
        in_force = self._policy(reader.card.thresholds)
        decision = replace(decide(prediction, in_force.policy, in_force.operating_points), policy=in_force.number)
        outcome = Read(prediction=prediction, decision=decision, remarks=film.remarks, scanner=scanner_of(film.header))
        return _Seen(outcome, film.pixels, tensor)

    def _keep_leases(self) -> None:
        while not self._stopping.wait(self._rules.lease.total_seconds() / 3):
            with self._hand:
                held = sorted(self._in_hand)
            if held:
                try:
                    self._jobs.heartbeat(held, self._owner, self._rules.lease, self._clock())
                except Exception:
                    log.error("heartbeat-failed", exc_info=True)
