"""What readers do with the studies of the list, what others hear of it, and two of them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from schemas.decision import Urgency
from schemas.findings import Label
from schemas.flag import Receipt, Withdrawal
from schemas.identity import StudyContext
from schemas.readings import Feedback, Judgement
from tests.contract.record.given import MODEL, PACS, RIS, SENDER, Record, after, file, instance, not_read, read
from worker.decide.routing import recipients
from worker.record.readings import UNKNOWN, Readings, Turn
from worker.record.studies import one

TASKS = replace(RIS, name="tasks", keeps_tasks=True)
EVERYBODY = (PACS, RIS, TASKS)
ROUTE = partial(recipients, EVERYBODY)
UNDO = timedelta(seconds=30)
STUDY = instance().study_uid
DONE = Turn(done=True)


@pytest.fixture
def readings(record: Record) -> Readings:
    """Study 1 is raised; everybody was told of it but the RIS, which was not tried yet."""
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    for name in ("pacs", "tasks"):
        delivery = record.deliver(name, after(1))
        record.outbox.sent(delivery.id, "courier", Receipt(object_id=f"1.{name}", proof="ok"), after(1))
    return Readings(record.database)


def story(record: Record) -> dict[str, Any]:
    found = record.worklist.results(STUDY)
    assert found is not None
    return found


def told(record: Record) -> list[tuple[str, int, str]]:
    return sorted((row["destination"], row["revision"], row["state"]) for row in story(record)["deliveries"])


def listed(record: Record) -> list[str]:
    return [row.study_uid for row in record.worklist.rows(10)]


def at_once(*works: Callable[[], Turn]) -> list[Turn]:
    gate, said = threading.Barrier(len(works)), list[Turn]()

    def run(work: Callable[[], Turn]) -> None:
        gate.wait()
        said.append(work())

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


# Opened and claimed


def test_only_the_first_look_counts_and_is_news_once(record: Record, readings: Readings) -> None:
    before = record.worklist.change_token()
    readings.opened(STUDY, after(5))
    opened = record.worklist.change_token()
    assert opened != before
    readings.opened(STUDY, after(9))
    readings.opened("1.2.9", after(9))
    assert record.worklist.change_token() == opened
    (row,) = record.worklist.rows(10)
    assert row.opened_at == after(5)


def test_a_claim_is_seen_and_given_up(record: Record, readings: Readings) -> None:
    before = record.worklist.change_token()
    assert readings.claim(STUDY, "dr one", after(5)) == DONE
    assert record.worklist.change_token() != before
    (row,) = record.worklist.rows(10)
    assert (row.claimed_by, row.claimed_at) == ("dr one", after(5))
    assert readings.claim(STUDY, "dr one", after(9)) == DONE, "once more is no fault"
    assert record.worklist.rows(10)[0].claimed_at == after(5)
    assert readings.release(STUDY, "dr two") == Turn(done=False, words="it is not claimed by you")
    assert readings.release(STUDY, "dr one") == DONE
    assert readings.release(STUDY, "dr one") == Turn(done=False, words="it is not claimed by you")
    assert record.worklist.rows(10)[0].claimed_by == ""


def test_anothers_claim_is_taken_only_on_purpose(record: Record, readings: Readings) -> None:
    readings.claim(STUDY, "dr one", after(5))
    assert readings.claim(STUDY, "dr two", after(6)) == Turn(done=False, words="dr one has claimed it")
    assert readings.read(STUDY, "dr two", after(6)) == Turn(done=False, words="dr one has claimed it")
    assert readings.claim(STUDY, "dr two", after(7), take_over=True) == DONE
    (row,) = record.worklist.rows(10)
    assert (row.claimed_by, row.claimed_at) == ("dr two", after(7))


@pytest.mark.parametrize("round_", range(5))
def test_of_two_who_claim_at_once_one_has_it(record: Record, readings: Readings, round_: int) -> None:
    said = at_once(*(partial(readings.claim, STUDY, name, after(5)) for name in ("dr one", "dr two")))
    (lost,) = [turn for turn in said if not turn.done]
    (row,) = record.worklist.rows(10)
    assert lost.words == f"{row.claimed_by} has claimed it"


@pytest.mark.parametrize("round_", range(5))
def test_of_two_who_read_at_once_one_has_read_it(record: Record, readings: Readings, round_: int) -> None:
    judged = partial(readings.read, STUDY, now=after(5), judgement=Judgement.AGREE)
    said = at_once(*(partial(judged, reader=name) for name in ("dr one", "dr two")))
    (lost,) = [turn for turn in said if not turn.done]
    (word,) = readings.feedback()
    assert lost.words == f"{word.reader} has read it already"


@pytest.mark.parametrize("uid", ["1.2.9", "", "no UID", "1.2\0.3", "1.2.\ud800", "9" * 5000])
def test_a_study_that_is_not_known_is_told_so(record: Record, readings: Readings, uid: str) -> None:
    acts = (
        readings.claim(uid, "dr one", after(5)),
        readings.release(uid, "dr one"),
        readings.read(uid, "dr one", after(5), judgement=Judgement.AGREE),
        readings.undo(uid, "dr one", after(5)),
        readings.judge(uid, "dr one", Judgement.AGREE, (), after(5)),
    )
    assert set(acts) == {UNKNOWN}
    readings.opened(uid, after(5))
    assert readings.feedback() == []


# Read and undone


def test_what_was_read_is_off_the_list_and_nobody_hears_of_it_yet(record: Record, readings: Readings) -> None:
    readings.claim(STUDY, "dr one", after(5))
    before = record.worklist.change_token()
    assert readings.read(STUDY, "dr one", after(60)) == DONE
    assert record.worklist.change_token() != before
    assert listed(record) == []
    assert record.worklist.counts().studies[Urgency.STAT] == 0
    assert [row[1] for row in told(record)] == [1, 1, 1]
    found = story(record)
    assert (found["read_by"], found["read_at"], found["claimed_by"]) == ("dr one", after(60).isoformat(), None)
    assert readings.read(STUDY, "dr one", after(61)) == DONE, "once more is no fault"
    assert story(record)["read_at"] == after(60).isoformat()
    for late in (
        readings.read(STUDY, "dr two", after(62)),
        readings.claim(STUDY, "dr two", after(62)),
        readings.claim(STUDY, "dr two", after(62), take_over=True),
    ):
        assert late == Turn(done=False, words="dr one has read it already")


def test_undone_it_is_on_the_list_again_and_the_readers(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60), judgement=Judgement.DISAGREE, findings=[Label.MASS])
    assert readings.undo(STUDY, "dr two", after(61)) == Turn(done=False, words="there is nothing of yours to undo")
    assert readings.undo(STUDY, "dr one", after(62)) == DONE
    (row,) = record.worklist.rows(10)
    assert (row.study_uid, row.claimed_by, row.urgency) == (STUDY, "dr one", Urgency.STAT)
    assert readings.feedback() == []
    assert readings.undo(STUDY, "dr one", after(63)) == Turn(done=False, words="there is nothing of yours to undo")
    assert readings.settle(ROUTE, after(999), UNDO) == 0
    assert [row[1] for row in told(record)] == [1, 1, 1]


def test_undo_leaves_what_another_said_before(record: Record, readings: Readings) -> None:
    readings.judge(STUDY, "dr one", Judgement.DISAGREE, [Label.MASS], after(50))
    readings.read(STUDY, "dr two", after(60))
    readings.undo(STUDY, "dr two", after(61))
    assert [word.reader for word in readings.feedback()] == ["dr one"]


# Settled


def test_after_a_while_those_who_keep_tasks_hear_that_it_was_read(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60))
    assert readings.settle(ROUTE, after(89), UNDO) == 0
    assert readings.settle(ROUTE, after(90), UNDO) == 1
    assert readings.settle(ROUTE, after(120), UNDO) == 0
    assert told(record) == [
        ("pacs", 1, "sent"),
        ("ris", 1, "superseded"),  # nobody is told to read what was read
        ("tasks", 1, "sent"),
        ("tasks", 2, "pending"),
    ]
    flag = record.deliver("tasks", after(91)).flag
    assert (flag.withdrawn, flag.urgency, flag.reasons) == (Withdrawal.REPORTED, Urgency.ROUTINE, ())
    assert listed(record) == []
    late = readings.undo(STUDY, "dr one", after(92))
    assert late == Turn(done=False, words="it is too late: others were told that it has been read")


def test_a_study_of_which_nothing_was_told_is_settled_too(record: Record, readings: Readings) -> None:
    record.receive(1, 2)
    record.conclude(record.claim(), not_read())
    readings.read("1.2.3.2", "dr one", after(60))
    assert readings.settle(ROUTE, after(90), UNDO) == 1
    assert record.worklist.results("1.2.3.2")["deliveries"] == []  # type: ignore[index]
    assert listed(record) == [STUDY]


def test_a_film_that_is_read_after_the_study_was_is_seen_first(record: Record, readings: Readings) -> None:
    """Its reader did not know what it would say."""
    record.receive(1, 2)
    readings.read("1.2.3.2", "dr one", after(60))
    assert listed(record) == [STUDY]
    assert readings.settle(ROUTE, after(90), UNDO) == 0, "a film of it waits"
    record.conclude(record.claim(at=after(91)), read(0.9), audiences=EVERYBODY, at=after(92))
    assert "1.2.3.2" in listed(record)
    assert readings.settle(ROUTE, after(200), UNDO) == 0


def test_what_was_said_since_the_reader_looked_is_not_read_with_it(record: Record, readings: Readings) -> None:
    assert not readings.read(STUDY, "dr one", after(60), revision=99).done
    assert readings.read(STUDY, "dr one", after(60), revision=1).done


def test_a_claim_lapses(record: Record, readings: Readings) -> None:
    assert readings.claim(STUDY, "dr one", after(60)).done
    assert not readings.claim(STUDY, "dr two", after(61)).done
    assert readings.claim(STUDY, "dr two", after(60 + 7200)).done


def test_a_report_or_presentation_state_is_no_news(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60))
    sr = replace(instance(7), sop_class="1.2.840.10008.5.1.4.1.1.88.33")
    context = StudyContext(patient_id="P1", patient_name="Phantom^Chest", modality="DX")
    record.instances.receive(sr, file("sr"), SENDER, context, Urgency.ROUTINE, after(70))
    assert listed(record) == []
    record.receive(8, at=after(80))
    assert listed(record) == [STUDY]


def test_a_report_that_comes_first_leaves_nothing_to_settle_and_nothing_to_undo(
    record: Record, readings: Readings
) -> None:
    readings.read(STUDY, "dr one", after(60))
    assert record.studies.withdraw(one(STUDY), Withdrawal.REPORTED, ROUTE, after(61)) == 1
    assert readings.settle(ROUTE, after(999), UNDO) == 0
    assert not readings.undo(STUDY, "dr one", after(62)).done
    assert [row for row in told(record) if row[1] > 1] == [("tasks", 2, "pending")]


@pytest.mark.parametrize("round_", range(5))
def test_undo_and_settling_at_once_leave_one_story(record: Record, readings: Readings, round_: int) -> None:
    readings.read(STUDY, "dr one", after(60))
    settled: list[int] = []

    def settle() -> Turn:
        settled.append(readings.settle(ROUTE, after(90), UNDO))
        return DONE

    turns = at_once(settle, partial(readings.undo, STUDY, "dr one", after(90)))
    undone = all(turn.done for turn in turns)
    assert settled == [0 if undone else 1]
    assert listed(record) == ([STUDY] if undone else [])
    assert [row for row in told(record) if row[1] > 1] == ([] if undone else [("tasks", 2, "pending")])


# A film that comes later


def test_a_new_film_brings_a_study_back_before_others_hear(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60), judgement=Judgement.AGREE)
    record.film(2, outcome=read(0.2), audiences=EVERYBODY, at=after(70))
    (row,) = record.worklist.rows(10)
    assert (row.study_uid, row.urgency, row.claimed_by) == (STUDY, Urgency.STAT, "")
    assert readings.settle(ROUTE, after(999), UNDO) == 0
    assert not readings.undo(STUDY, "dr one", after(71)).done
    assert [word.judgement for word in readings.feedback()] == [Judgement.AGREE]


def test_a_new_film_brings_a_study_back_after_others_heard(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60))
    readings.settle(ROUTE, after(90), UNDO)
    record.film(2, outcome=read(0.2), audiences=EVERYBODY, at=after(100))
    (row,) = record.worklist.rows(10)
    assert row.urgency is Urgency.ROUTINE, "what was read raises it no more"
    record.film(3, outcome=read(0.8), audiences=EVERYBODY, at=after(110))
    (row,) = record.worklist.rows(10)
    assert row.urgency is Urgency.STAT
    assert readings.claim(STUDY, "dr two", after(120)) == DONE


def test_the_same_film_again_is_not_a_new_one(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60))
    record.receive(1, at=after(70))
    assert listed(record) == []


# What readers say


def test_what_readers_say_is_kept_with_what_was_said_to_them(record: Record, readings: Readings) -> None:
    record.film(1, 2, read(0.1), audiences=EVERYBODY, at=after(2))
    readings.read("1.2.3.2", "dr two", after(50), judgement=Judgement.DISAGREE, findings=[Label.MASS, Label.NODULE])
    readings.read(STUDY, "dr one", after(60), judgement=Judgement.AGREE)
    assert readings.feedback() == [
        Feedback(
            study_uid="1.2.3.2",
            reader="dr two",
            judgement=Judgement.DISAGREE,
            findings=(Label.MASS, Label.NODULE),
            at=after(50),
        ),
        Feedback(study_uid=STUDY, reader="dr one", judgement=Judgement.AGREE, findings=(), at=after(60)),
    ]
    from sqlalchemy import select

    from schemas.tables import FeedbackRow

    kept = record.database.read(lambda c: c.execute(select(FeedbackRow.revision, FeedbackRow.model_id)).all())
    assert [tuple(row) for row in kept] == [(1, MODEL.id)] * 2


def test_a_later_word_takes_the_place_of_the_earlier(record: Record, readings: Readings) -> None:
    readings.read(STUDY, "dr one", after(60), judgement=Judgement.AGREE)
    readings.settle(ROUTE, after(90), UNDO)
    before = record.worklist.change_token()
    assert readings.judge(STUDY, "dr two", Judgement.DISAGREE, [Label.EFFUSION], after(5000)) == DONE
    assert record.worklist.change_token() != before
    (word,) = readings.feedback()
    assert (word.reader, word.judgement, word.findings) == ("dr two", Judgement.DISAGREE, (Label.EFFUSION,))


def test_what_was_refused_says_nothing(record: Record, readings: Readings) -> None:
    readings.claim(STUDY, "dr one", after(5))
    readings.read(STUDY, "dr two", after(6), judgement=Judgement.AGREE)
    assert readings.feedback() == []
