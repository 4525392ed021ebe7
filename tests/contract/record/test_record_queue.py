"""The queue of films: claim, heartbeat, release, rescue, requeue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from schemas.decision import Urgency
from schemas.errors import LeaseLost
from schemas.lifecycle import JobState, StudyState
from schemas.not_analysed import NotAnalysed
from tests.contract.record.given import LEASE, NOW, Record, after, not_read, read


def test_the_urgent_order_goes_first_then_the_order_of_arrival(record: Record) -> None:
    record.receive(1, 1, at=after(2))
    record.receive(1, 2, at=after(1))
    record.receive(1, 3, order=Urgency.STAT, at=after(3))
    record.receive(1, 4, order=Urgency.URGENT, at=after(0))
    jobs = record.jobs.claim("reader", 10, LEASE, after(5))
    assert [job.instance.study_uid[-1] for job in jobs] == ["3", "4", "2", "1"]


def test_no_more_than_asked_for_and_none_twice(record: Record) -> None:
    for film in range(5):
        record.receive(film)
    first = record.jobs.claim("a", 3, LEASE, NOW)
    second = record.jobs.claim("b", 3, LEASE, NOW)
    assert (len(first), len(second)) == (3, 2)
    assert len({job.id for job in (*first, *second)}) == 5
    assert record.jobs.claim("c", 3, LEASE, NOW) == []
    assert record.jobs.owners() == {"a", "b"}


def test_threads_never_share_a_film(record: Record) -> None:
    for film in range(40):
        record.receive(film)

    def take(worker: int) -> list[int]:
        taken = []
        while jobs := record.jobs.claim(f"w{worker}", 1, LEASE, NOW):
            taken += [job.id for job in jobs]
        return taken

    with ThreadPoolExecutor(8) as pool:
        ids = [id_ for taken in pool.map(take, range(8)) for id_ in taken]
    assert len(ids) == len(set(ids)) == 40


def test_a_released_film_waits_until_it_is_due(record: Record) -> None:
    record.receive()
    job = record.claim()
    record.jobs.release(job, "reader", after(10), "OutOfMemory")
    assert record.jobs.claim("reader", 1, LEASE, after(9)) == []
    assert record.worklist.rows(1)[0].state is StudyState.RECEIVING
    assert record.claim(at=after(10)).attempt == 2


def test_who_lost_the_lease_can_neither_release_nor_conclude(record: Record) -> None:
    record.receive()
    job = record.claim("slow")
    assert record.jobs.rescue(after(61), 3) == 1
    for attempt in (
        lambda: record.jobs.release(job, "slow", NOW, ""),
        lambda: record.conclude(job, read(0.9), worker="slow"),
        lambda: record.conclude(job, not_read(), worker="slow"),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    again = record.claim("quick", at=after(61))
    with pytest.raises(LeaseLost):
        record.conclude(job, read(0.9), worker="slow")
    assert record.conclude(again, read(0.1), worker="quick").urgency is Urgency.ROUTINE
    assert len(_predictions(record)) == 1


def test_a_worker_that_lost_a_film_and_took_it_again_holds_only_the_later_attempt(record: Record) -> None:
    record.receive()
    first = record.claim()
    record.jobs.rescue(after(61), 3)
    second = record.claim(at=after(61))
    with pytest.raises(LeaseLost):
        record.conclude(first, read(0.9))
    assert record.conclude(second, read(0.9)).revision == 1
    with pytest.raises(LeaseLost):
        record.conclude(second, read(0.9))


def test_a_heartbeat_keeps_the_lease_and_says_what_is_lost(record: Record) -> None:
    record.receive(1)
    record.receive(2)
    first, second = record.jobs.claim("reader", 2, LEASE, NOW)
    assert record.jobs.heartbeat([first.id], "reader", LEASE, after(50)) == {first.id}
    assert record.jobs.rescue(after(61), 3) == 1
    assert record.jobs.heartbeat([first.id, second.id], "reader", LEASE, after(62)) == {first.id}
    assert record.jobs.heartbeat([first.id], "other", LEASE, after(62)) == set()


def test_a_lease_that_lasts_is_left_alone(record: Record) -> None:
    record.receive()
    record.claim()
    assert record.jobs.rescue(after(59), 3) == 0


def test_films_of_the_dead_are_given_back_at_once(record: Record) -> None:
    record.receive(1)
    record.receive(2)
    record.claim("dead")
    record.claim("alive")
    assert record.jobs.rescue(after(1), 3, ["dead", "unknown"]) == 1
    assert record.jobs.owners() == {"alive"}
    assert record.claim("next", at=after(1)).attempt == 2


def test_a_film_that_kills_its_readers_is_set_aside(record: Record) -> None:
    record.receive()
    for attempt in range(3):
        record.claim("victim", at=after(100 * attempt))
        assert record.jobs.rescue(after(100 * attempt + 61), 3) == 1
    assert record.jobs.claim("victim", 1, LEASE, after(1000)) == []
    row = record.worklist.rows(1)[0]
    assert row.films == {JobState.FAILED: 1}
    assert row.not_analysed == (NotAnalysed.MODEL_FAILED,)
    assert row.state is StudyState.READ


def test_requeue_reads_again_what_it_names(record: Record) -> None:
    record.film(1, study=1, outcome=not_read(NotAnalysed.MODEL_FAILED))
    record.film(1, study=2, outcome=not_read(NotAnalysed.MODEL_FAILED))
    record.film(1, study=3, outcome=read(0.9))
    assert record.jobs.requeue("1.2.3.1", [JobState.FAILED], after(1)) == 1
    assert record.jobs.requeue(None, [JobState.FAILED], after(1)) == 1
    assert record.jobs.requeue("1.2.3.3", [JobState.FAILED], after(1)) == 0
    assert record.jobs.requeue("1.2.3.3", [JobState.READ, JobState.READING], after(1)) == 1
    assert record.jobs.requeue("9.9", [JobState.READ], after(1)) == 0
    assert len(record.jobs.claim("reader", 10, LEASE, after(1))) == 3
    assert {row.state for row in record.worklist.rows(10)} == {StudyState.RECEIVING}


def test_requeue_leaves_what_is_being_read_and_what_has_no_bytes(record: Record) -> None:
    record.receive(1)
    record.claim()
    assert record.jobs.requeue(None, list(JobState), NOW) == 0
    record.film(2, outcome=read(0.9))
    record.studies.purged([2])
    assert record.jobs.requeue(None, list(JobState), NOW) == 0


def test_a_result_counts_until_the_next_one_takes_its_place(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.jobs.requeue(None, [JobState.READ], after(1))
    record.receive(2, at=after(2))
    jobs = record.jobs.claim("reader", 2, LEASE, after(2))
    record.conclude(jobs[1], read(0.2), at=after(2))
    assert _films_told(record) == {"1.2.3.1.1.1": 0.9, "1.2.3.1.1.2": 0.2}
    record.conclude(jobs[0], read(0.8), at=after(3))
    assert _films_told(record) == {"1.2.3.1.1.1": 0.8, "1.2.3.1.1.2": 0.2}
    assert [p["reading"] for p in _predictions(record)] == [1, 2]


def test_the_lease_is_as_long_as_asked(record: Record) -> None:
    record.receive()
    record.jobs.claim("reader", 1, timedelta(seconds=5), NOW)
    assert record.jobs.rescue(after(5), 3) == 0
    assert record.jobs.rescue(after(5.001), 3) == 1


def _predictions(record: Record) -> list[dict[str, object]]:
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    return list(results["films"][0]["predictions"])


def _films_told(record: Record) -> dict[str, float]:
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    return {f["instance"]["sop_uid"]: f["binary"] for f in results["revisions"][-1]["snapshot"]["films"]}
