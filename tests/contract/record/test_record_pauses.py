"""Flags held back: by every courier, without losing one, and never what takes a flag back."""

from __future__ import annotations

from functools import partial

from schemas.decision import Urgency
from schemas.flag import Receipt, Withdrawal
from schemas.lifecycle import OutboxState
from schemas.watching import Pause, Spell
from tests.contract.record.given import LEASE, PACS, Record, after, read
from worker.decide.routing import recipients
from worker.record.database import Database
from worker.record.pauses import Pauses
from worker.record.studies import one

ROUTE = partial(recipients, [PACS])


def claimed(record: Record, at: float = 60) -> list[tuple[str, int, Urgency]]:
    found = record.outbox.claim("pacs", "courier", 10, LEASE, after(at))
    return [(delivery.flag.study_uid, delivery.flag.revision, delivery.flag.urgency) for delivery in found]


def test_a_pause_is_known_to_every_process_and_lines_are_only_added(record: Record) -> None:
    pauses, elsewhere = Pauses(record.database), Database(record.url)
    assert pauses.current() is None
    assert not pauses.resume("anna", "", after(0))
    assert pauses.pause("anna", "a new detector", after(1))
    assert Pauses(elsewhere).current() == Pause(at=after(1), who="anna", why="a new detector")
    assert not pauses.pause("ben", "again", after(2))
    assert pauses.resume("ben", "checked", after(3))
    assert pauses.current() is None
    assert pauses.pause("drift watch", "scores", after(4))
    elsewhere.close()
    assert pauses.spells(10) == [
        Spell(pause=Pause(at=after(4), who="drift watch", why="scores")),
        Spell(
            pause=Pause(at=after(1), who="anna", why="a new detector"),
            resumed_at=after(3),
            resumed_by="ben",
            because="checked",
        ),
    ]
    assert len(pauses.spells(1)) == 1


def test_while_paused_no_courier_gets_a_flag_and_none_is_lost(record: Record) -> None:
    pauses = Pauses(record.database)
    record.film(1, 1, read(0.7))
    pauses.pause("anna", "why", after(0))
    record.film(1, 2, read(0.9))  # films are read and recorded as ever
    assert claimed(record) == []
    assert record.outbox.counts()["pacs"][OutboxState.PENDING] == 2
    assert [row.urgency for row in record.worklist.rows(10)] == [Urgency.STAT, Urgency.STAT]
    pauses.resume("anna", "", after(30))
    assert claimed(record) == [("1.2.3.1", 1, Urgency.STAT), ("1.2.3.2", 1, Urgency.STAT)]


def test_on_resuming_only_what_still_holds_is_told(record: Record) -> None:
    pauses = Pauses(record.database)
    pauses.pause("anna", "why", after(0))
    for study in (1, 2, 3):
        record.film(1, study, read(0.9))
    record.film(2, 3, read(0.95), at=after(1))
    record.studies.withdraw(one("1.2.3.1"), Withdrawal.REPORTED, ROUTE, after(2))
    pauses.resume("anna", "", after(30))
    assert claimed(record) == [("1.2.3.2", 1, Urgency.STAT), ("1.2.3.3", 2, Urgency.STAT)]


def test_a_flag_that_is_out_is_taken_back_also_while_paused(record: Record) -> None:
    pauses = Pauses(record.database)
    record.film(1, 1, read(0.9))
    delivery = record.deliver()
    record.outbox.sent(delivery.id, "courier", Receipt(object_id="1", proof="0x0000"), after(1))
    pauses.pause("anna", "why", after(2))
    record.studies.withdraw(one("1.2.3.1"), Withdrawal.PERSON, ROUTE, after(3))
    assert claimed(record) == [("1.2.3.1", 2, Urgency.ROUTINE)]


def test_the_list_is_told_of_a_pause(record: Record) -> None:
    pauses, tokens = Pauses(record.database), [record.worklist.change_token()]
    pauses.pause("anna", "why", after(0))
    tokens.append(record.worklist.change_token())
    pauses.resume("anna", "", after(1))
    tokens.append(record.worklist.change_token())
    assert len(set(tokens)) == 3
