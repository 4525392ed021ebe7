from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.decision import Policy, Urgency
from schemas.errors import LeaseLost, OutOfMemory, RecordError
from schemas.findings import FINDINGS, LABELS
from schemas.gate import GateRules
from schemas.identity import InstanceRef, StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.outcome import FilmOutcome, ModelRef, NotRead, Read
from schemas.policy import InForce
from schemas.prediction import Prediction
from tests.unit.infer.bundles import card
from worker.corridor.bell import Bell
from worker.corridor.live import Live, Reader
from worker.corridor.reading import Reading, ReadingRules
from worker.record.jobs import Concluded, Job
from worker.simulate import phantom

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CARD = {**{str(f): 0.5 for f in FINDINGS}, "binary": 0.5}


def job(number: int, path: str, attempt: int = 1) -> Job:
    ref = InstanceRef(study_uid="1.1", series_uid="1.2", sop_uid=f"1.3.{number}", sop_class="1", transfer_syntax="1")
    return Job(
        id=number,
        instance=ref,
        path=path,
        version=1,
        attempt=attempt,
        order_urgency=Urgency.ROUTINE,
        received_at=NOW,
        called_ae="HILUM",
        context=StudyContext(),
    )


class ListJobs:
    """Jobs in a list; what became of each is written down."""

    def __init__(self, *waiting: Job, faults: tuple[Exception, ...] = (), awaited: bool = False) -> None:
        self.waiting, self.faults, self.awaited = list(waiting), list(faults), awaited
        self.concluded: dict[int, FilmOutcome] = {}
        self.released: dict[int, datetime] = {}
        self.done = threading.Event()
        self.lock = threading.Lock()

    def claim(self, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Job]:
        with self.lock:
            if not self.waiting:
                if not self.awaited or self.concluded:
                    self.done.set()
                return []
            return [self.waiting.pop(0)]

    def conclude(self, job: Job, worker: str, outcome: FilmOutcome, *_: object) -> Concluded:
        if self.faults:
            raise self.faults.pop(0)
        self.concluded[job.id] = outcome
        return Concluded(urgency=Urgency.ROUTINE, revision=1)

    def release(self, job: Job, worker: str, not_before: datetime, detail: str) -> None:
        self.released[job.id] = not_before

    def heartbeat(self, *_: object) -> set[int]:
        return set()


class Files:
    """A spool that is a folder."""

    def path_of(self, file: str) -> Path:
        return Path(file)


class Says:
    """An engine that answers at once."""

    def __init__(self, answer: Callable[[], float]) -> None:
        self._answer = answer

    @contextmanager
    def expect(self) -> Iterator[None]:
        yield

    def submit(self, tensor: Any, urgency: Urgency) -> Future[Prediction]:
        assert tensor.shape == (224, 224, 3)
        future: Future[Prediction] = Future()
        try:
            p = self._answer()
            future.set_result(Prediction(model_id="m", binary=p, findings=dict.fromkeys(LABELS, p)))
        except Exception as error:  # noqa: BLE001  as the engine does
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("film") / "film.dcm"
    phantom.dataset(1, rows=512, columns=448).save_as(path, enforce_file_format=True)
    return str(path)


def read_all(jobs: ListJobs, answer: Callable[[], float] = lambda: 0.9) -> int:
    """Run readers until the list is empty; how often couriers were rung."""
    news = Bell()
    reading = Reading(
        jobs=jobs,  # type: ignore[arg-type]
        spool=Files(),  # type: ignore[arg-type]
        live=Live(
            Reader(
                engine=Says(answer),  # type: ignore[arg-type]
                model=ModelRef(id="m", name="m", version="1"),
                card=card(thresholds=CARD, input_size=224),
            )
        ),
        gate=GateRules(),
        policy=lambda card: InForce(number=7, policy=Policy(), operating_points=card),
        route=lambda news, told: [],
        work=Bell(),
        news=news,
        owner="me",
        rules=ReadingRules(look_every=0.01, again_every=0.01, attempts=3),
        clock=lambda: NOW,
        readers=2,
    )
    reading.start()
    assert jobs.done.wait(30)
    reading.stop()
    return news.rung


def test_a_film_is_read_decided_and_told(film: str) -> None:
    jobs = ListJobs(job(1, film))
    assert read_all(jobs) == 1
    outcome = jobs.concluded[1]
    assert isinstance(outcome, Read)
    assert outcome.decision.urgency is Urgency.STAT
    assert outcome.decision.policy == 7
    assert outcome.prediction.timings_ms.keys() >= {"decode", "tensor"}
    assert outcome.scanner is not None
    assert outcome.scanner.words == "hilum phantom, PA, 12 bit"


def test_a_record_that_was_away_is_told_when_it_is_back(film: str) -> None:
    """Seen with PostgreSQL restarted in a burst: what was in hand was flagged only when its lease had lapsed."""
    jobs = ListJobs(job(1, film), faults=(RecordError("away"), RecordError("away")), awaited=True)
    assert read_all(jobs) == 1
    assert isinstance(jobs.concluded[1], Read)


def test_what_may_not_be_scored_is_concluded_with_its_code(tmp_path: Path) -> None:
    lateral = tmp_path / "lateral.dcm"
    phantom.dataset(1, rows=512, columns=448, view="LL").save_as(lateral, enforce_file_format=True)
    jobs = ListJobs(job(1, str(lateral)))
    read_all(jobs)
    outcome = jobs.concluded[1]
    assert isinstance(outcome, NotRead)
    assert outcome.code is NotAnalysed.LATERAL
    assert outcome.scanner is not None
    assert outcome.scanner.words == "hilum phantom, LL, 12 bit"


def test_a_passing_fault_gives_the_film_back_and_the_last_attempt_sets_it_aside(film: str) -> None:
    def fails() -> float:
        raise OutOfMemory("no room")

    jobs = ListJobs(job(1, film, attempt=1), job(2, film, attempt=3))
    read_all(jobs, fails)
    assert jobs.released == {1: NOW + timedelta(seconds=2)}
    assert jobs.concluded == {2: NotRead(code=NotAnalysed.MODEL_FAILED, detail="OutOfMemory")}


@pytest.mark.parametrize("fault", [LeaseLost("gone"), ValueError("bug")])
def test_no_fault_at_door_2_ends_a_reader(film: str, fault: Exception) -> None:
    jobs = ListJobs(*(job(n, film) for n in range(4)), faults=(fault,))
    read_all(jobs)
    assert len(jobs.concluded) == 3


def test_missing_bytes_are_a_fault_not_a_verdict(tmp_path: Path) -> None:
    jobs = ListJobs(job(1, str(tmp_path / "gone.dcm")))
    read_all(jobs)
    assert list(jobs.released) == [1]
