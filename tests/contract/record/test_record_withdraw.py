"""A flag is taken back: a revision of its own, told to whoever was told; what raised it raises it no more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from schemas.decision import Urgency
from schemas.errors import PermanentFailure
from schemas.flag import Receipt, Withdrawal
from schemas.lifecycle import OutboxState
from tests.contract.record.given import MODEL, NOW, PACS, RIS, Record, after, read
from worker.decide.routing import recipients
from worker.record.studies import one, raised_by

TASKS = replace(RIS, name="tasks", keeps_tasks=True)
EVERYBODY = (PACS, RIS, TASKS)
ROUTE = partial(recipients, EVERYBODY)
STUDY = "1.2.3.1"


def withdraw(record: Record, why: Withdrawal = Withdrawal.PERSON, seconds: float = 60) -> int:
    return record.studies.withdraw(one(STUDY), why, ROUTE, after(seconds))


def deliver(record: Record, name: str, seconds: float = 1) -> None:
    delivery = record.deliver(name, after(seconds))
    record.outbox.sent(delivery.id, "courier", Receipt(object_id=f"1.{name}", proof="ok"), after(seconds))


def states(record: Record) -> list[tuple[str, int, str]]:
    story = record.worklist.results(STUDY)
    assert story is not None
    return sorted((row["destination"], row["revision"], row["state"]) for row in story["deliveries"])


def test_who_was_told_hears_of_it_and_who_was_not_even_tried_does_not(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    deliver(record, "pacs")
    tried = record.deliver("tasks", after(1))
    record.outbox.retry(tried.id, "courier", "away", after(2))
    assert withdraw(record) == 1
    assert states(record) == [
        ("pacs", 1, "sent"),
        ("pacs", 2, "pending"),
        ("ris", 1, "superseded"),
        ("tasks", 1, "pending"),  # it may have arrived unproven: sent again, then taken back
        ("tasks", 2, "pending"),
    ]
    told = record.deliver("pacs", after(61)).flag
    assert (told.withdrawn, told.urgency, told.reasons, told.revision, told.predecessor) == (
        Withdrawal.PERSON,
        Urgency.ROUTINE,
        (),
        2,
        1,
    )
    assert all(not film.reasons for film in told.films)
    (row,) = record.worklist.rows(10)
    assert (row.withdrawn, row.urgency, row.reasons) == (Withdrawal.PERSON, Urgency.ROUTINE, ())


def test_once_is_enough_and_nothing_told_is_nothing_to_withdraw(record: Record) -> None:
    record.receive(1)
    assert withdraw(record) == 0
    record.conclude(record.claim(), read(0.9))
    assert withdraw(record) == 1
    assert withdraw(record) == 0


def test_a_later_film_may_raise_the_study_again_but_not_the_old_one(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    deliver(record, "pacs")
    withdraw(record)
    assert record.film(2, outcome=read(0.2), audiences=EVERYBODY, at=after(70)).urgency is Urgency.ROUTINE
    again = record.film(3, outcome=read(0.8), audiences=EVERYBODY, at=after(80))
    assert again.urgency is Urgency.STAT
    (row,) = record.worklist.rows(10)
    assert row.withdrawn is None
    assert [word.split()[1] for word in row.reasons] == ["0.80,"]


def test_a_film_read_again_after_the_withdrawal_counts(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    withdraw(record)
    from schemas.lifecycle import JobState

    record.jobs.requeue(STUDY, [JobState.READ], after(70))
    assert record.conclude(record.claim(at=after(70)), read(0.9), at=after(71)).urgency is Urgency.STAT


def test_a_reported_study_leaves_the_list_and_is_told_to_those_who_keep_tasks(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    for name in ("pacs", "ris", "tasks"):
        deliver(record, name)
    withdraw(record, Withdrawal.REPORTED)
    assert [state for state in states(record) if state[1] == 2] == [("tasks", 2, "pending")]
    assert record.worklist.rows(10) == []
    assert record.worklist.counts().studies[Urgency.ROUTINE] == 0


def test_a_film_that_waits_while_its_study_is_reported_is_read_and_flags_nothing(record: Record) -> None:
    record.receive(1)
    assert withdraw(record, Withdrawal.REPORTED) == 0
    assert record.conclude(record.claim(at=after(61)), read(0.9), at=after(62)).revision is None
    story = record.worklist.results(STUDY)
    assert story is not None
    assert story["deliveries"] == []
    assert story["films"][0]["predictions"]
    # A film after the report is news.
    assert record.film(2, outcome=read(0.8), at=after(90)).urgency is Urgency.STAT
    assert len(record.worklist.rows(10)) == 1


def test_a_recalled_model_takes_back_what_it_raised_and_nothing_else(record: Record) -> None:
    other = replace(MODEL, id="ffff")
    record.film(1, study=1, outcome=read(0.9))
    record.film(1, study=2, outcome=read(0.1))
    record.receive(1, 3)
    said = read(0.9)
    others = replace(said, prediction=replace(said.prediction, model_id=other.id))
    record.conclude(record.claim(), others, model=other)
    assert record.studies.withdraw(raised_by(MODEL.id), Withdrawal.MODEL, ROUTE, after(60)) == 1
    assert [row.study_uid[-1] for row in record.worklist.rows(10)] == ["3", "1", "2"]


def test_replay_never_raises_again_what_was_withdrawn(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    deliver(record, "pacs")
    refused = record.deliver("ris", after(1))
    record.outbox.refuse(refused.id, "courier", str(PermanentFailure("no")), after(1))
    withdraw(record)
    deliver(record, "pacs", 61)
    assert record.outbox.replay() == 1
    again = record.deliver("pacs", after(62)).flag
    assert again.withdrawn is Withdrawal.PERSON


def test_a_commitment_proves_and_its_refusal_is_set_aside(record: Record) -> None:
    for study in (1, 2):
        record.film(1, study, read(0.9))
        delivery = record.deliver(at=after(1))
        receipt = Receipt(object_id=f"2.25.{study}", proof="C-STORE 0x0000", proven=False)
        record.outbox.sent(delivery.id, "courier", receipt, after(2))
    assert record.outbox.committed("2.25.1", kept=True, words="Storage Commitment", now=after(3)) == 1
    assert record.outbox.committed("2.25.1", kept=True, words="Storage Commitment", now=after(4)) == 0, "once"
    assert record.outbox.committed("2.25.2", kept=False, words="not kept", now=after(3)) == 1
    assert record.outbox.committed("2.25.9", kept=True, words="whose?", now=after(3)) == 0
    first, second = (record.worklist.results(f"1.2.3.{n}")["deliveries"][0] for n in (1, 2))  # type: ignore[index]
    assert (first["proof"], first["proven_at"]) == ("C-STORE 0x0000; Storage Commitment", after(3).isoformat())
    assert (second["state"], second["last_error"]) == (OutboxState.REFUSED, "not kept")


def test_what_has_no_commitment_is_proven_when_it_is_sent(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    deliver(record, "pacs", 2)
    story = record.worklist.results(STUDY)
    assert story is not None
    assert story["deliveries"][0]["proven_at"] == after(2).isoformat()
    assert story["revisions"][0]["decided_at"] == NOW.isoformat()
