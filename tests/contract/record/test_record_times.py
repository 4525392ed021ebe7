"""Time to flag, read from the rows."""

from __future__ import annotations

import random

import pytest

from schemas.flag import Receipt
from schemas.lifecycle import JobState
from tests.contract.record.given import NOW, PACS, RIS, Record, after, read
from worker.record import times
from worker.record.times import Spread, Stage, Times

EVER = (after(-9e6), after(9e6))


def deliver(record: Record, destination: str, at: float, *, proven: bool = True) -> None:
    delivery = record.deliver(destination, after(at))
    receipt = Receipt(object_id=f"1.2.{delivery.id}", proof="0x0000", proven=proven)
    record.outbox.sent(delivery.id, "courier", receipt, after(at))


def film(record: Record, study: int, *, received: float, claimed: float, decided: float) -> None:
    record.receive(1, study, at=after(received))
    record.conclude(record.claim(at=after(claimed)), read(0.9), audiences=(PACS, RIS), at=after(decided))


def test_each_stage_is_counted_from_the_last_byte(record: Record) -> None:
    film(record, 1, received=0, claimed=1, decided=3)
    deliver(record, "pacs", 5)
    deliver(record, "ris", 8, proven=False)
    pacs, ris = Times(record.database).flags(*EVER)
    assert pacs.waited() == {
        Stage.READABLE: 1.0125,
        Stage.INFERRED: 1.04275,
        Stage.DECIDED: 3.0,
        Stage.SENT: 5.0,
        Stage.PROVEN: 5.0,
    }
    assert (ris.destination, ris.waited()[Stage.SENT]) == ("ris", 8.0)
    assert Stage.PROVEN not in ris.waited()


def test_what_has_not_gone_out_has_no_time_yet(record: Record) -> None:
    film(record, 1, received=0, claimed=1, decided=3)
    assert {Stage.SENT, Stage.PROVEN}.isdisjoint(next(Times(record.database).flags(*EVER)).waited())


def test_a_film_that_is_read_again_was_not_waited_for(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    deliver(record, "pacs", 2)
    record.jobs.requeue(None, [JobState.READ], after(3600))
    record.conclude(record.claim(at=after(3601)), read(0.9), at=after(3602))
    deliver(record, "pacs", 3603)
    (flag,) = Times(record.database).flags(*EVER)
    assert flag.waited() == {Stage.DECIDED: 0.0, Stage.SENT: 2.0, Stage.PROVEN: 2.0}


def test_a_replay_changes_nothing_of_it(record: Record) -> None:
    film(record, 1, received=0, claimed=1, decided=3)
    deliver(record, "pacs", 5)
    record.outbox.replay("pacs")
    deliver(record, "pacs", 5000)
    pacs, _ = Times(record.database).flags(*EVER)
    assert pacs.waited()[Stage.SENT] == 5.0


def test_only_what_was_decided_in_that_time_by_group(record: Record) -> None:
    for study in range(6):
        film(record, study, received=60 * study, claimed=60 * study, decided=60 * study + 1)
        deliver(record, "pacs", 60 * study + 2 + study)
    spreads = Times(record.database).spreads(after(60), after(300), lambda flag: flag.destination)
    assert list(spreads) == ["pacs", "ris"]
    assert {stage: spread.count for stage, spread in spreads["pacs"].items()} == dict.fromkeys(Stage, 4)
    assert spreads["ris"][Stage.SENT].count == 0
    assert spreads["ris"][Stage.SENT].percentile(50) is None
    p50, p99 = (spreads["pacs"][Stage.SENT].percentile(p) for p in (50, 99))
    assert p50 == pytest.approx(4, rel=0.011)
    assert p99 == pytest.approx(6, rel=0.011)


def test_memory_is_bounded_and_nothing_is_counted_twice(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "CHUNK", 2)
    for study in range(5):
        film(record, study, received=study, claimed=study, decided=study + 1)
    assert len(list(Times(record.database).flags(*EVER))) == 10


def test_percentiles_are_right_to_one_percent() -> None:
    drawn = random.Random(1)
    values = [drawn.lognormvariate(0, 2) for _ in range(5000)]
    spread = Spread()
    for value in values:
        spread.add(value)
    values.sort()
    for percent in (50, 95, 99, 100):
        exact = values[-(-len(values) * percent // 100) - 1]
        told = spread.percentile(percent)
        assert told is not None
        assert exact <= told * (1 + 1e-9)
        assert told <= exact * 1.0101


def test_how_busy_it_was(record: Record) -> None:
    assert Times(record.database).arrivals(*EVER).per_minute is None
    for study in range(5):
        film(record, study, received=30 * study, claimed=30 * study, decided=30 * study + 1)
    arrivals = Times(record.database).arrivals(*EVER)
    assert (arrivals.studies, arrivals.films_read, arrivals.first_at) == (5, 5, NOW)
    assert arrivals.per_minute == pytest.approx(2.0)
