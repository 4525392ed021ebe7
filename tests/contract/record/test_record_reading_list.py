"""The reading list as other systems ask for it."""

from __future__ import annotations

import threading

import pytest

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.identity import StudyContext
from schemas.not_analysed import NotAnalysed
from tests.contract.record.given import PACS, Record, after, instance, not_read, read
from worker.decide.routing import recipients
from worker.record.reading_list import ListedFilm, ReadingList
from worker.record.studies import one


def withdraw(record: Record, study: int, why: Withdrawal) -> None:
    record.studies.withdraw(one(f"1.2.3.{study}"), why, lambda news, told: recipients((PACS,), news, told), after(99))


def test_the_most_urgent_first_then_who_waits_longest_and_none_left_out(record: Record) -> None:
    record.film(1, 1, read(0.1), at=after(0))
    record.film(1, 2, read(0.9), at=after(2))
    record.film(1, 3, read(0.9), at=after(1))
    record.film(1, 4, read(0.9, Urgency.URGENT), at=after(3))
    record.film(1, 5, not_read(), at=after(4))
    record.receive(1, 6, at=after(5))
    studies = ReadingList(record.database).open()
    assert [study.study_uid[-1] for study in studies] == ["3", "2", "4", "1", "5", "6"]
    assert [study.priority.name for study in studies] == ["STAT", "STAT", "URGENT", "ROUTINE", "ROUTINE", "ROUTINE"]


def test_a_study_says_all(record: Record) -> None:
    record.receive(
        1, context=StudyContext(patient_id="P9", patient_name="Phantom^Ä", accession_number="A1"), at=after(1)
    )
    record.conclude(record.claim(at=after(1)), read(0.9), at=after(2))
    record.film(2, outcome=not_read(), at=after(3))
    (study,) = ReadingList(record.database).open()
    assert (study.study_uid, study.urgency, study.priority) == ("1.2.3.1", Urgency.STAT, Urgency.STAT)
    assert (study.context.patient_name, study.context.accession_number) == ("Phantom^Chest", "A1")
    assert study.reasons == ("pneumothorax 0.90, threshold 0.62",)
    assert study.not_analysed == (NotAnalysed.LATERAL,)
    assert (study.revision, study.received_at, study.decided_at) == (2, after(1), after(3))
    assert study.stations == ("ROOM1",)
    assert study.films == tuple(
        ListedFilm(series_uid=i.series_uid, sop_class=i.sop_class, sop_uid=i.sop_uid)
        for i in (instance(1), instance(2))
    )


def test_a_film_that_came_twice_is_one(record: Record) -> None:
    record.film(1)
    record.receive(1, content="other bytes")
    (study,) = ReadingList(record.database).open()
    assert len(study.films) == 1


def test_what_is_reported_or_let_go_is_no_longer_there(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), at=after(study))
    reading_list = ReadingList(record.database)
    assert len(reading_list.open()) == 3
    withdraw(record, 1, Withdrawal.REPORTED)
    withdraw(record, 2, Withdrawal.PERSON)
    assert [(s.study_uid[-1], s.urgency, s.withdrawn) for s in reading_list.open()] == [
        ("3", Urgency.STAT, None),
        ("2", Urgency.ROUTINE, Withdrawal.PERSON),
    ]
    record.studies.finalise(after(1) - after(0), after(999))
    record.studies.purged([3])
    assert [s.study_uid[-1] for s in reading_list.open()] == ["2"]
    record.receive(2, 1, at=after(1000))  # a film that came after the report
    assert [s.study_uid[-1] for s in reading_list.open()] == ["1", "2"]


def test_what_changes_is_seen_and_what_does_not_is_not_read_again(record: Record) -> None:
    reading_list = ReadingList(record.database)
    assert reading_list.open() == ()
    record.film(1, 1, read(0.1), at=after(1))
    record.film(1, 2, read(0.1), at=after(2))
    first = reading_list.open()
    assert reading_list.open() is first
    record.film(2, 2, read(0.9), at=after(3))
    second = reading_list.open()
    assert [study.study_uid[-1] for study in second] == ["2", "1"]
    assert (len(second[0].films), second[0].urgency) == (2, Urgency.STAT)
    assert second[1] is first[0]


def test_more_studies_than_one_statement_takes(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    for study in range(1, 8):
        record.receive(1, study, at=after(study))
    monkeypatch.setattr("worker.record.reading_list._CHUNK", 3)
    studies = ReadingList(record.database).open()
    assert [(study.study_uid[-1], len(study.films)) for study in studies] == [(str(n), 1) for n in range(1, 8)]


def test_many_ask_while_films_arrive(record: Record) -> None:
    reading_list = ReadingList(record.database)
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            uids = [study.study_uid for study in reading_list.open()]
            if uids != sorted(uids, key=lambda uid: int(uid.rpartition(".")[2])):
                wrong.append(uids)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for study in range(1, 30):
        record.receive(1, study, at=after(study))
    done.set()
    for asker in askers:
        asker.join(20)
    assert not wrong
    assert len(reading_list.open()) == 29
