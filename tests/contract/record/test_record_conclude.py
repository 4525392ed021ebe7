"""Door 2: result, urgency, revision and outbox in one transaction."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from schemas.decision import StudyVerdict, Urgency
from schemas.flag import FilmResult
from schemas.lifecycle import JobState, OutboxState, StudyState
from schemas.not_analysed import NotAnalysed
from tests.contract.record.given import (
    LEASE,
    MODEL,
    NOW,
    PACS,
    RIS,
    Record,
    after,
    instance,
    not_read,
    read,
    reason,
    settle,
)


def story(record: Record, study: int = 1) -> dict[str, Any]:
    results = record.worklist.results(f"1.2.3.{study}")
    assert results is not None
    return results


def outbox(record: Record, study: int = 1) -> list[tuple[str, int, str]]:
    return [(d["destination"], d["revision"], d["state"]) for d in story(record, study)["deliveries"]]


def test_a_read_film_is_recorded_whole(record: Record) -> None:
    concluded = record.film(1, outcome=read(0.91), at=after(3))
    assert (concluded.urgency, concluded.revision) == (Urgency.STAT, 1)
    film = story(record)["films"][0]
    assert film["state"] == "read"
    (prediction,) = film["predictions"]
    assert prediction["binary"] == pytest.approx(0.91)
    assert len(prediction["findings"]) == 15
    assert prediction["thresholds"] == {"Pneumothorax": 0.62}
    assert prediction["timings_ms"] == {"decode": 12.5, "infer": 30.25}
    assert prediction["consistency"] == "agree"
    assert prediction["remarks"] == ["polarity-corrected"]
    assert prediction["urgency"] == "STAT"
    row = record.worklist.rows(1)[0]
    assert (row.urgency, row.reasons) == (Urgency.STAT, ("pneumothorax 0.91, threshold 0.62",))
    assert (row.state, row.revision, row.decided_at) == (StudyState.READ, 1, after(3))
    assert outbox(record) == [("pacs", 1, "pending")]


def test_a_film_that_is_not_analysed_has_its_code_and_no_score(record: Record) -> None:
    concluded = record.film(1, outcome=not_read(NotAnalysed.LATERAL))
    assert (concluded.urgency, concluded.revision) == (Urgency.ROUTINE, None)
    film = story(record)["films"][0]
    assert (film["state"], film["not_analysed"], film["detail"]) == ("not-analysed", "lateral", "ViewPosition LL")
    assert film["predictions"] == []
    assert outbox(record) == []
    assert record.worklist.rows(1)[0].not_analysed == (NotAnalysed.LATERAL,)


def test_a_study_is_read_only_when_no_film_waits(record: Record) -> None:
    record.receive(1)
    record.receive(2)
    record.conclude(record.claim(), read(0.9))
    assert record.worklist.rows(1)[0].state is StudyState.RECEIVING
    record.conclude(record.claim(), not_read())
    assert record.worklist.rows(1)[0].state is StudyState.READ


def test_urgency_only_rises_and_every_news_is_a_revision(record: Record) -> None:
    seen = [
        record.film(1, outcome=read(0.2)),
        record.film(2, outcome=read(0.7, Urgency.URGENT)),
        record.film(3, outcome=read(0.9)),
        record.film(4, outcome=read(0.1)),
    ]
    assert [c.urgency for c in seen] == [Urgency.ROUTINE, Urgency.URGENT, Urgency.STAT, Urgency.STAT]
    assert [c.revision for c in seen] == [1, 2, 3, 4]
    assert [(r["revision"], r["urgency"]) for r in story(record)["revisions"]] == [
        (1, "ROUTINE"),
        (2, "URGENT"),
        (3, "STAT"),
        (4, "STAT"),
    ]


def test_where_a_second_reading_says_less_the_reasons_that_raised_the_study_stand(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.jobs.requeue(None, [JobState.READ], NOW)
    concluded = record.conclude(record.claim(), read(0.3))
    assert (concluded.urgency, concluded.revision) == (Urgency.STAT, 2)
    assert record.worklist.rows(1)[0].reasons == ("pneumothorax 0.90, threshold 0.62",)


def test_the_same_result_again_is_no_news(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.jobs.requeue(None, [JobState.READ], NOW)
    assert record.conclude(record.claim(), read(0.9004)).revision is None
    assert record.worklist.rows(1)[0].revision == 1
    assert len(story(record)["films"][0]["predictions"]) == 2
    assert outbox(record) == [("pacs", 1, "pending")]


def test_another_model_is_news(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.jobs.requeue(None, [JobState.READ], NOW)
    concluded = record.conclude(record.claim(), read(0.9), model=replace(MODEL, id="ffff"))
    assert concluded.revision == 2
    assert [r["model_id"] for r in story(record)["revisions"]] == [MODEL.id, "ffff"]


def test_what_is_not_analysed_is_told_once_a_film_was_read(record: Record) -> None:
    assert record.film(1, outcome=not_read(NotAnalysed.LATERAL)).revision is None
    assert record.film(2, outcome=read(0.1)).revision == 1
    assert record.film(3, outcome=not_read(NotAnalysed.BLANK)).revision == 2
    flag = record.deliver().flag
    assert [(f.instance.sop_uid[-1], f.binary, f.not_analysed) for f in flag.films] == [
        ("1", None, NotAnalysed.LATERAL),
        ("2", 0.1, None),
        ("3", None, NotAnalysed.BLANK),
    ]


def test_settle_is_given_every_film_with_a_result(record: Record) -> None:
    given: list[tuple[FilmResult, ...]] = []

    def watch(films: tuple[FilmResult, ...]) -> StudyVerdict:
        given.append(films)
        return settle(films)

    record.film(1, outcome=not_read())
    record.receive(2)
    record.receive(3)
    record.conclude(record.claim(), read(0.7), settle=watch)
    (films,) = given
    assert [f.instance for f in films] == [instance(1), instance(2)]
    assert films[1].reasons == (reason(0.7),)
    assert films[1].remarks == ("polarity-corrected",)


def test_the_latest_version_is_told_and_what_an_earlier_one_showed_still_raises(record: Record) -> None:
    """In whatever order two versions are read: a modality may give one UID to two different films."""
    record.receive(1, content="a")
    record.receive(1, content="b")
    first, second = record.jobs.claim("reader", 2, LEASE, NOW)
    assert record.conclude(second, read(0.2)).urgency is Urgency.ROUTINE
    concluded = record.conclude(first, read(0.9))
    assert concluded.urgency is Urgency.STAT
    snapshot = story(record)["revisions"][-1]["snapshot"]
    assert [f["binary"] for f in snapshot["films"]] == [0.2]
    assert [r["words"] for r in snapshot["reasons"]] == ["pneumothorax 0.90, threshold 0.62"]


def test_the_version_before_counts_until_its_successor_has_a_result(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.receive(1, content="other bytes")
    record.receive(2)
    jobs = record.jobs.claim("reader", 2, LEASE, NOW)
    record.conclude(jobs[1], read(0.1))
    assert [f["binary"] for f in story(record)["revisions"][-1]["snapshot"]["films"]] == [0.9, 0.1]


def test_destinations_hear_what_they_asked_for(record: Record) -> None:
    record.film(1, outcome=read(0.1), audiences=(PACS, RIS))
    assert outbox(record) == [("pacs", 1, "pending")]
    record.film(2, outcome=read(0.9), audiences=(PACS, RIS))
    assert outbox(record) == [("pacs", 1, "superseded"), ("pacs", 2, "pending"), ("ris", 2, "pending")]


def test_who_heard_of_a_study_hears_of_every_revision(record: Record) -> None:
    """`when` was "analysed" at first: the destination holds a flag that must not go stale."""
    record.film(1, outcome=read(0.1), audiences=(replace(RIS, when="analysed"),))
    record.film(2, outcome=read(0.2), audiences=(RIS,))
    assert outbox(record) == [("ris", 1, "superseded"), ("ris", 2, "pending")]


def test_nothing_is_recorded_when_settle_fails(record: Record) -> None:
    record.receive()
    job = record.claim()

    def broken(_films: tuple[FilmResult, ...]) -> StudyVerdict:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record.conclude(job, read(0.9), settle=broken)
    assert story(record)["films"][0]["predictions"] == []
    assert record.conclude(job, read(0.9)).revision == 1


def test_two_films_of_a_study_concluded_at_once_give_one_history(record: Record) -> None:
    for study in range(10):
        record.receive(1, study)
        record.receive(2, study)
    jobs = {(j.instance.study_uid, j.instance.sop_uid[-1]): j for j in record.jobs.claim("reader", 100, LEASE, NOW)}
    for study in range(10):
        gate = threading.Barrier(2)

        def one(film: str, study: int = study, gate: threading.Barrier = gate) -> int | None:
            gate.wait()
            return record.conclude(
                jobs[f"1.2.3.{study}", film], read(0.9 if film == "1" else 0.3), audiences=(PACS, RIS)
            ).revision

        with ThreadPoolExecutor(2) as pool:
            assert sorted(r or 0 for r in pool.map(one, "12")) == [1, 2]
        told = story(record, study)
        assert [r["revision"] for r in told["revisions"]] == [1, 2]
        assert len(told["revisions"][0]["snapshot"]["films"]) == 1
        assert len(told["revisions"][1]["snapshot"]["films"]) == 2
        assert told["revisions"][1]["urgency"] == "STAT"
        assert ("pacs", 2, "pending") in outbox(record, study)
        assert ("ris", 2, "pending") in outbox(record, study)
        assert [s for _, _, s in outbox(record, study)].count("pending") == 2
        assert told["state"] == "read"


def test_a_study_of_many_slices_that_are_not_read_stays_quick(record: Record) -> None:
    """Nothing is gathered for a study of which no film was read."""
    calls: list[int] = []

    def count(films: tuple[FilmResult, ...]) -> StudyVerdict:
        calls.append(len(films))
        return settle(films)

    for film in range(5):
        record.receive(film)
        record.conclude(record.claim(), not_read(NotAnalysed.NOT_A_RADIOGRAPH), settle=count)
    assert calls == []
    assert record.worklist.rows(1)[0].films == {JobState.NOT_ANALYSED: 5}


def test_a_flag_is_as_it_was_decided(record: Record) -> None:
    record.film(1, outcome=read(0.91), at=after(7))
    delivery = record.deliver(at=after(8))
    flag = delivery.flag
    assert delivery.attempt == 1
    assert (flag.study_uid, flag.revision, flag.urgency, flag.predecessor) == ("1.2.3.1", 1, Urgency.STAT, None)
    assert (flag.model_id, flag.model_name, flag.model_version) == (MODEL.id, "starter", "1.0")
    assert flag.decided_at == after(7)
    assert flag.reasons == (reason(0.91),)
    assert flag.context.patient_name == "Phantom^Chest"
    (film,) = flag.films
    assert film.instance == instance(1)
    assert film.binary == pytest.approx(0.91)
    assert list(film.findings) == list(read().prediction.findings)
    assert outbox(record) == [("pacs", 1, OutboxState.SENDING)]
