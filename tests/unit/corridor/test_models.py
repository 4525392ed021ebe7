"""The model that reads is changed under load, and a candidate reads along: nothing is lost, nothing is held up."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from schemas.card import ModelCard
from schemas.decision import Decision, Policy, Urgency
from schemas.errors import GoldenMismatch, ModelError, RecordError
from schemas.findings import FINDINGS, LABELS
from schemas.gate import GateRules
from schemas.outcome import FilmOutcome, ModelRef, Read
from schemas.policy import InForce
from schemas.prediction import Prediction
from schemas.registry import ModelAction, ModelReader, ModelState, RegisteredModel, Service
from tests.unit.corridor.test_reading import Files, film, job  # noqa: F401  a fixture
from tests.unit.infer.bundles import card
from tests.waiting import eventually
from worker.corridor.bell import Bell
from worker.corridor.live import Live, Reader
from worker.corridor.models import ModelWatch
from worker.corridor.reading import Reading, ReadingRules
from worker.corridor.shadow import BEHIND, Shadow
from worker.decide.policy import decide
from worker.record.jobs import Concluded, Job

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CARD = {**{str(f): 0.5 for f in FINDINGS}, "binary": 0.5}


class FakeEngine:
    """Says its name, and tells when it is asked after it was closed."""

    def __init__(self, name: str, p: float = 0.9, seconds: float = 0.0) -> None:
        self.name, self.p, self.seconds = name, p, seconds
        self.closed, self.films = False, 0
        self.shapes: list[tuple[int, ...]] = []
        self.free = threading.Event()
        self.free.set()

    @contextmanager
    def expect(self) -> Iterator[None]:
        yield

    def submit(self, tensor: Any, urgency: Urgency = Urgency.ROUTINE) -> Future[Prediction]:
        if self.closed:
            raise ModelError("the engine is closed")
        assert self.free.wait(30)
        time.sleep(self.seconds)
        self.films += 1
        self.shapes.append(tensor.shape)
        answer: Future[Prediction] = Future()
        answer.set_result(Prediction(model_id=self.name, binary=self.p, findings=dict.fromkeys(LABELS, self.p)))
        return answer

    def close(self) -> None:
        self.closed = True


def reader(engine: FakeEngine, size: int = 224) -> Reader:
    model = ModelRef(id=engine.name, name=engine.name, version="1")
    return Reader(engine=engine, model=model, card=of(engine.name, size))  # type: ignore[arg-type]


def of(name: str, size: int = 224) -> ModelCard:
    return card(name=name, input_size=size, thresholds=CARD)


def registered(name: str) -> RegisteredModel:
    return RegisteredModel(
        model_id=name, name=name, version="1", bundle=name, state=ModelState.LIVE, added_at=NOW, card=of(name)
    )


class FakeRegistry:
    """What is wanted, and what was told."""

    def __init__(self, live: str, shadow: str | None = None) -> None:
        self.live, self.shadow = live, shadow
        self.told: list[tuple[str, ModelAction, str]] = []
        self.reports: list[ModelReader] = []
        self.faults: list[Exception] = []

    def wanted(self) -> tuple[str | None, str | None]:
        if self.faults:
            raise self.faults.pop(0)
        return self.live, self.shadow

    def service(self) -> Service | None:
        shadow = None if self.shadow is None else registered(self.shadow)
        return Service(live=registered(self.live), shadow=shadow)

    def tell(self, reader: str, model: str, action: ModelAction, why: str, now: datetime) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.told.append((model, action, why))

    def report(self, reader: ModelReader) -> None:
        self.reports.append(reader)


class Stream:
    """Films without end, until it is told that it is enough."""

    def __init__(self, path: str) -> None:
        self.path, self.numbers, self.enough = path, itertools.count(1), False
        self.claimed: set[int] = set()
        self.concluded: dict[int, tuple[FilmOutcome, ModelRef]] = {}
        self.released: list[int] = []
        self.lock = threading.Lock()

    def claim(self, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Job]:
        with self.lock:
            if self.enough:
                return []
            number = next(self.numbers)
            self.claimed.add(number)
            return [job(number, self.path)]

    def conclude(
        self, job: Job, worker: str, outcome: FilmOutcome, settle: Any, route: Any, model: ModelRef, now: datetime
    ) -> Concluded:
        with self.lock:
            assert job.id not in self.concluded, "flagged twice"
            self.concluded[job.id] = outcome, model
        return Concluded(urgency=Urgency.ROUTINE, revision=1)

    def release(self, job: Job, *_: object) -> None:
        self.released.append(job.id)

    def heartbeat(self, *_: object) -> set[int]:
        return set()


def in_force(card: Any) -> InForce:
    return InForce(number=0, policy=Policy(), operating_points=card)


def readers_of(stream: Stream, live: Live, count: int = 3) -> Reading:
    return Reading(
        jobs=stream,  # type: ignore[arg-type]
        spool=Files(),  # type: ignore[arg-type]
        live=live,
        gate=GateRules(),
        policy=in_force,
        route=lambda news, told: [],
        work=Bell(),
        news=Bell(),
        owner="me",
        rules=ReadingRules(look_every=0.01),
        clock=lambda: NOW,
        readers=count,
    )


def never(model: RegisteredModel) -> Reader:
    """Loads nothing."""
    raise AssertionError(model)


def watch(registry: FakeRegistry, live: Live, load: Callable[[RegisteredModel], Reader], **more: Any) -> ModelWatch:
    def no_shadow(model: RegisteredModel) -> Shadow:
        raise AssertionError(model)

    settings: dict[str, Any] = {"shadow": no_shadow, "owner": "host/1", "clock": lambda: NOW, "every": 0.01, **more}
    return ModelWatch(registry=registry, live=live, load=load, **settings)


def go_on(stream: Stream, films: int = 20) -> None:
    """Until so many more are read."""
    before = len(stream.concluded)
    eventually(lambda: len(stream.concluded) > before + films, 30, "films are not read")


def test_under_load_no_film_is_lost_and_each_is_read_by_one_model_throughout(film: str) -> None:  # noqa: F811
    engines = [FakeEngine("a", seconds=0.001)]
    live = Live(reader(engines[0]))
    registry, stream = FakeRegistry("a"), Stream(film)

    def load(model: RegisteredModel) -> Reader:
        engines.append(FakeEngine(model.model_id, seconds=0.001))
        return reader(engines[-1])

    reading, following = readers_of(stream, live), watch(registry, live, load)
    reading.start()
    following.start()
    for wanted in ("b", "c", "a", "b"):
        go_on(stream)
        registry.live = wanted
        eventually(lambda: live.reader.model.id == registry.live, 10)
    go_on(stream)
    stream.enough = True
    eventually(lambda: stream.claimed == stream.concluded.keys(), 30, "a film was lost")
    reading.stop()
    following.stop()
    assert stream.released == []
    for outcome, model in stream.concluded.values():
        assert isinstance(outcome, Read)
        assert outcome.prediction.model_id == model.id
    assert {model.id for _, model in stream.concluded.values()} == {"a", "b", "c"}
    assert [e.name for e in engines] == ["a", "b", "c", "a", "b"]
    assert [e.closed for e in engines] == [True, True, True, False, False]  # the last and the one before
    assert [(model, action) for model, action, _ in registry.told] == [(m, "taken up") for m in ("b", "c", "a", "b")]
    live.close()
    assert engines[-1].closed and engines[-2].closed


def test_to_roll_back_takes_no_loading_while_the_model_before_is_kept() -> None:
    old, loaded = FakeEngine("a"), []
    live, registry = Live(reader(old)), FakeRegistry("b")

    def load(model: RegisteredModel) -> Reader:
        loaded.append(FakeEngine(model.model_id))
        return reader(loaded[-1])

    following = watch(registry, live, load, spare=60)
    following.look()
    registry.live = "a"
    following.look()
    assert live.reader.engine is old  # type: ignore[comparison-overlap]
    assert (old.closed, [e.name for e in loaded]) == (False, ["b"])
    assert not loaded[0].closed  # and back again
    registry.live = "b"
    following.look()
    assert live.reader.engine is loaded[0]  # type: ignore[comparison-overlap]
    assert len(loaded) == 1


def test_the_model_before_is_kept_for_a_while_only_and_never_with_another_card() -> None:
    old, loaded = FakeEngine("a"), []
    live, registry = Live(reader(old)), FakeRegistry("b")

    def load(model: RegisteredModel) -> Reader:
        loaded.append(FakeEngine(model.model_id))
        return reader(loaded[-1])

    following = watch(registry, live, load, spare=0.05)
    following.look()
    assert not old.closed
    time.sleep(0.06)
    following.look()
    assert old.closed
    registry.live = "a"
    following.look()
    assert [e.name for e in loaded] == ["b", "a"]

    following = watch(registry, live, load, spare=60)
    registry.live = "b"
    following.look()
    other = replace(registered("a"), card=card(name="a", thresholds=dict.fromkeys(CARD, 0.3)))
    registry.live = "a"
    registry.service = lambda: Service(live=other, shadow=None)
    following.look()
    assert [e.name for e in loaded] == ["b", "a", "b", "a"]


def test_no_film_waits_while_the_new_model_is_loaded(film: str) -> None:  # noqa: F811
    live = Live(reader(FakeEngine("a")))
    stream, loading, loaded = Stream(film), threading.Event(), threading.Event()

    def load(model: RegisteredModel) -> Reader:
        loading.set()
        assert loaded.wait(30)
        return reader(FakeEngine(model.model_id))

    reading, following = readers_of(stream, live), watch(FakeRegistry("b"), live, load)
    reading.start()
    following.start()
    assert loading.wait(10)
    go_on(stream)
    loaded.set()
    eventually(lambda: live.reader.model.id == "b", 10)
    reading.stop()
    following.stop()


def test_the_old_model_is_closed_when_its_last_film_is_done_and_not_before(film: str) -> None:  # noqa: F811
    old, new = FakeEngine("a"), FakeEngine("b")
    live = Live(reader(old))
    old.free.clear()
    stream = Stream(film)
    reading = readers_of(stream, live, count=1)
    reading.start()
    eventually(lambda: stream.claimed, 10)
    live.replace(reader(new))
    assert live.sweep() == 0 and not old.closed
    assert not live.quiet(0.05)
    old.free.set()
    eventually(lambda: new.films, 10)
    assert live.sweep() == 1 and old.closed and not new.closed
    reading.stop()
    assert live.quiet(1)


@pytest.mark.parametrize("fault", [GoldenMismatch("golden film 3"), RuntimeError("no such device"), MemoryError()])
def test_what_cannot_be_loaded_leaves_the_old_model_and_is_told_once(fault: Exception) -> None:
    engine = FakeEngine("a")
    live, registry, tried = Live(reader(engine)), FakeRegistry("b"), []

    def load(model: RegisteredModel) -> Reader:
        tried.append(model.model_id)
        raise fault

    following = watch(registry, live, load, again=0.05)
    following.look()
    following.look()
    assert (tried, live.reader.model.id, engine.closed) == (["b"], "a", False)
    time.sleep(0.06)
    following.look()
    assert tried == ["b", "b"]
    assert registry.told == [("b", ModelAction.REFUSED, str(fault))]
    assert type(fault).__name__ in following.fault
    assert registry.reports[-1].model_id == "a" and type(fault).__name__ in registry.reports[-1].fault
    registry.live = "a"  # rolled back
    following.look()
    assert following.fault == registry.reports[-1].fault == ""


def test_a_record_that_is_away_changes_nothing_and_is_told_later() -> None:
    live, registry = Live(reader(FakeEngine("a"))), FakeRegistry("b")
    registry.faults = [RecordError("away")]
    following = watch(registry, live, lambda model: reader(FakeEngine(model.model_id)))
    with pytest.raises(RecordError):
        following.look()
    assert live.reader.model.id == "a"
    registry.wanted = lambda: ("b", None)  # type: ignore[method-assign]
    registry.faults = [RecordError("away")]  # away again in the moment in which it is to be told
    with pytest.raises(RecordError):
        following.look()
    assert (live.reader.model.id, registry.told) == ("b", [])
    following.look()
    assert [model for model, _, _ in registry.told] == ["b"]


def test_how_it_stands_is_said_when_it_changes_and_from_time_to_time() -> None:
    clock = [NOW]
    live, registry = Live(reader(FakeEngine("a"))), FakeRegistry("a")
    following = watch(registry, live, lambda model: reader(FakeEngine("b")), clock=lambda: clock[0])
    for _ in range(5):
        following.look()
    assert len(registry.reports) == 1
    clock[0] += timedelta(minutes=1)
    following.look()
    assert len(registry.reports) == 2
    registry.live = "b"
    following.look()
    assert registry.reports[-1] == replace(registry.reports[-2], model_id="b", since=clock[0])


# ── the shadow ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Kept:
    """What the shadow said."""

    def __init__(self) -> None:
        self.films: dict[int, tuple[tuple[Prediction, Decision], tuple[Prediction, Decision]]] = {}
        self.faults: list[Exception] = []

    def __call__(self, job: int, said: Any, aloud: Any, now: datetime) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.films[job] = said, aloud


def shadow_of(engine: FakeEngine, kept: Kept, live: Live, size: int = 224) -> Shadow:
    return Shadow(
        engine.name,
        load=lambda: reader(engine, size),
        keep=kept,
        policy=in_force,
        quiet=live.quiet,
        clock=lambda: NOW,
    )


def aloud(p: float = 0.9) -> Read:
    prediction = Prediction(model_id="a", binary=p, findings=dict.fromkeys(LABELS, p))
    return Read(prediction=prediction, decision=decide(prediction, Policy(), CARD))


PIXELS, TENSOR = np.zeros((300, 300), np.uint8), np.zeros((224, 224, 3), np.uint8)


def test_the_shadow_reads_what_was_read_and_says_nothing(film: str) -> None:  # noqa: F811
    live, candidate, kept, stream = Live(reader(FakeEngine("a"))), FakeEngine("b", p=0.1), Kept(), Stream(film)
    registry = FakeRegistry("a", shadow="b")
    following = watch(registry, live, never, shadow=lambda m: shadow_of(candidate, kept, live))
    following.look()
    eventually(lambda: live.shadow.reader, 10)  # type: ignore[union-attr]
    reading = readers_of(stream, live, count=1)
    reading.start()
    eventually(lambda: len(stream.concluded) >= 5, 30)
    stream.enough = True
    eventually(lambda: len(kept.films) >= 5, 30)
    reading.stop()
    assert all(model.id == "a" for _, model in stream.concluded.values())
    (said, decided), (live_said, live_decided) = kept.films[1]
    assert (said.model_id, live_said.model_id) == ("b", "a")
    assert (decided.urgency, live_decided.urgency) == (Urgency.ROUTINE, Urgency.STAT)
    assert registry.reports[-1].shadow_id == "b"
    registry.shadow = None
    following.look()
    eventually(lambda: candidate.closed, 10)
    assert live.shadow is None and registry.reports[-1].shadow_id is None


def test_the_shadow_waits_while_a_film_is_being_read() -> None:
    live, candidate, kept = Live(reader(FakeEngine("a"))), FakeEngine("b"), Kept()
    shadow = shadow_of(candidate, kept, live)
    shadow.start()
    eventually(lambda: shadow.reader, 10)
    with live.take():
        shadow.offer(1, PIXELS, TENSOR, aloud())
        time.sleep(0.1)
        assert candidate.films == 0
    eventually(lambda: 1 in kept.films, 10)
    shadow.stop()


def test_a_shadow_that_falls_behind_drops_the_oldest_and_holds_nobody_up() -> None:
    live, candidate, kept = Live(reader(FakeEngine("a"))), FakeEngine("b"), Kept()
    shadow = shadow_of(candidate, kept, live)
    shadow.start()
    eventually(lambda: shadow.reader, 10)
    with live.take():
        began = time.perf_counter()
        for number in range(BEHIND + 10):
            shadow.offer(number, PIXELS, TENSOR, aloud())
        assert time.perf_counter() - began < 0.5
        assert shadow.dropped == 10
    eventually(lambda: len(kept.films) == BEHIND, 10)
    assert min(kept.films) == 10
    shadow.stop()


def test_a_shadow_of_another_size_makes_its_own_tensors() -> None:
    live, candidate, kept = Live(reader(FakeEngine("a"))), FakeEngine("b"), Kept()
    shadow = shadow_of(candidate, kept, live, size=320)
    shadow.start()
    eventually(lambda: shadow.reader, 10)
    shadow.offer(1, PIXELS, TENSOR, aloud())
    eventually(lambda: kept.films, 10)
    assert candidate.shapes == [(320, 320, 3)]
    shadow.stop()


def test_no_fault_ends_the_shadow() -> None:
    live, candidate, kept = Live(reader(FakeEngine("a"))), FakeEngine("b"), Kept()
    kept.faults = [RecordError("away"), ValueError("bug")]
    shadow = shadow_of(candidate, kept, live)
    shadow.start()
    eventually(lambda: shadow.reader, 10)
    for number in range(3):
        shadow.offer(number, PIXELS, TENSOR, aloud())
    eventually(lambda: 2 in kept.films, 10)
    assert (shadow.read, shadow.dropped) == (1, 2)
    shadow.stop()
    assert candidate.closed


def test_a_shadow_that_cannot_be_loaded_says_why() -> None:
    live = Live(reader(FakeEngine("a")))

    def fails() -> Reader:
        raise GoldenMismatch("golden film 3")

    def make(model: RegisteredModel) -> Shadow:
        return Shadow("b", load=fails, keep=Kept(), policy=in_force, quiet=live.quiet, clock=lambda: NOW)

    registry = FakeRegistry("a", shadow="b")
    following = watch(registry, live, never, shadow=make)
    following.start()
    eventually(lambda: registry.reports and "golden film 3" in registry.reports[-1].fault, 10)
    following.stop()


def test_the_shadow_is_of_the_lowest_priority_and_the_readers_are_not() -> None:
    live, seen = Live(reader(FakeEngine("a"))), []

    def load() -> Reader:
        with ThreadPoolExecutor(1) as pool:  # as a runtime starts its own
            seen.append(pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result())
        return reader(FakeEngine("b"))

    shadow = Shadow("b", load=load, keep=Kept(), policy=in_force, quiet=live.quiet, clock=lambda: NOW)
    shadow.start()
    eventually(lambda: shadow.reader, 10)
    shadow.stop()
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
