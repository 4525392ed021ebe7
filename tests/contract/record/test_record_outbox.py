"""What must be told to whom, in which order, and that nobody is told twice or out of turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from schemas.decision import Urgency
from schemas.errors import LeaseLost
from schemas.flag import Receipt
from schemas.lifecycle import JobState, OutboxState
from tests.contract.record.given import LEASE, MODEL, NOW, PACS, RIS, Record, after, read
from worker.record.outbox import Delivery, Sent

RECEIPT = Receipt(object_id="2.25.1", proof="C-STORE 0x0000")


def sent(record: Record, delivery: Delivery) -> None:
    record.outbox.sent(delivery.id, "courier", RECEIPT, NOW)


def states(record: Record, destination: str = "pacs", study: int = 1) -> list[str]:
    results = record.worklist.results(f"1.2.3.{study}")
    assert results is not None
    return [d["state"] for d in results["deliveries"] if d["destination"] == destination]


def test_the_most_urgent_goes_first_then_the_first_decided(record: Record) -> None:
    record.film(1, 1, read(0.1), at=after(1))
    record.film(1, 2, read(0.9), at=after(4))
    record.film(1, 3, read(0.9), at=after(3))
    record.film(1, 4, read(0.9, Urgency.URGENT), at=after(2))
    taken = record.outbox.claim("pacs", "courier", 10, LEASE, after(9))
    assert [d.flag.study_uid[-1] for d in taken] == ["3", "2", "4", "1"]
    assert record.outbox.claim("pacs", "courier", 10, LEASE, after(9)) == []
    assert record.outbox.owners() == {"courier"}


def test_destinations_do_not_wait_for_one_another(record: Record) -> None:
    record.film(1, 1, read(0.9), audiences=(PACS, RIS))
    assert record.deliver("pacs").flag == record.deliver("ris").flag
    assert record.outbox.claim("elsewhere", "courier", 1, LEASE, NOW) == []


def test_the_receipt_is_kept(record: Record) -> None:
    record.film(1)
    sent(record, record.deliver())
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    (delivery,) = results["deliveries"]
    assert (delivery["object_id"], delivery["proof"]) == ("2.25.1", "C-STORE 0x0000")
    assert delivery["sent_at"] == NOW.isoformat()
    assert record.outbox.claim("pacs", "courier", 1, LEASE, after(999)) == []
    assert record.worklist.rows(1)[0].deliveries[0].state is OutboxState.SENT


def test_what_was_never_tried_is_superseded(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    record.film(2, outcome=read(0.2))
    record.film(3, outcome=read(0.9))
    assert states(record) == ["superseded", "superseded", "pending"]
    delivery = record.deliver()
    assert (delivery.flag.revision, delivery.flag.predecessor) == (3, None)


def test_a_successor_waits_for_what_is_under_way(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    first = record.deliver()
    record.film(2, outcome=read(0.9))
    assert record.outbox.claim("pacs", "other", 1, LEASE, NOW) == []
    assert record.outbox.next_due("pacs") is None
    sent(record, first)
    second = record.deliver()
    assert (second.flag.revision, second.flag.predecessor) == (2, 1)


def test_a_predecessor_is_named_with_the_model_that_made_it(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    sent(record, record.deliver())
    record.jobs.requeue(None, [JobState.READ], NOW)
    record.conclude(record.claim(), read(0.1), model=replace(MODEL, id="ffff"))
    flag = record.deliver().flag
    assert (flag.model_id, flag.predecessor, flag.predecessor_model_id) == ("ffff", 1, MODEL.id)


def test_what_was_tried_may_have_arrived_so_it_is_sent_again_before_its_successor(record: Record) -> None:
    """Else a killed sender leaves two flags at the destination of which neither knows the other."""
    record.film(1, outcome=read(0.1))
    record.deliver()
    record.film(2, outcome=read(0.2))
    record.film(3, outcome=read(0.9))
    assert record.outbox.rescue(after(61)) == 1
    assert states(record) == ["pending", "superseded", "pending"]
    again = record.deliver(at=after(61))
    assert (again.flag.revision, again.attempt) == (1, 2)
    sent(record, again)
    assert record.deliver(at=after(61)).flag.predecessor == 1


def test_a_passing_fault_waits(record: Record) -> None:
    record.film(1)
    delivery = record.deliver()
    record.outbox.retry(delivery.id, "courier", "connection refused", after(30))
    assert record.outbox.next_due("pacs") == after(30)
    assert record.outbox.claim("pacs", "courier", 1, LEASE, after(29)) == []
    assert record.worklist.rows(1)[0].deliveries[0].last_error == "connection refused"
    again = record.deliver(at=after(30))
    assert (again.id, again.attempt, again.flag) == (delivery.id, 2, delivery.flag)


def test_a_lasting_fault_is_set_aside_and_does_not_hold_up_its_successor(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    record.outbox.refuse(record.deliver().id, "courier", "SOP class refused", NOW)
    assert record.outbox.next_due("pacs") is None
    record.film(2, outcome=read(0.9))
    second = record.deliver()
    assert (second.flag.revision, second.flag.predecessor) == (2, None)
    assert states(record) == ["refused", "sending"]


def test_who_lost_the_lease_can_say_nothing(record: Record) -> None:
    record.film(1)
    delivery = record.deliver()
    assert record.outbox.rescue(after(59)) == 0
    assert record.outbox.rescue(after(61)) == 1
    taken = record.outbox.claim("pacs", "other", 1, LEASE, after(61))
    for attempt in (
        lambda: sent(record, delivery),
        lambda: record.outbox.retry(delivery.id, "courier", "", NOW),
        lambda: record.outbox.refuse(delivery.id, "courier", "", NOW),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    record.outbox.sent(taken[0].id, "other", RECEIPT, NOW)
    with pytest.raises(LeaseLost):
        record.outbox.sent(taken[0].id, "other", RECEIPT, NOW)


def test_flags_of_the_dead_are_given_back_at_once(record: Record) -> None:
    record.film(1)
    record.deliver()
    assert record.outbox.rescue(after(1), ["somebody"]) == 0
    assert record.outbox.rescue(after(1), ["courier"]) == 1
    assert record.deliver(at=after(1)).attempt == 2


def test_replay_sends_the_latest_of_each_study_again(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    sent(record, record.deliver())
    record.film(2, outcome=read(0.9))
    second = record.deliver()
    sent(record, second)
    assert record.outbox.replay() == 1
    assert record.outbox.replay() == 0
    again = record.deliver()
    assert again.flag == second.flag
    sent(record, again)
    assert states(record) == ["sent", "sent"]


def test_replay_can_be_told_what(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), audiences=(PACS, RIS), at=after(study))
        sent(record, record.deliver("pacs", after(9)))
        record.outbox.refuse(record.deliver("ris", after(9)).id, "courier", "no", NOW)
    assert record.outbox.replay(study_uid="9.9") == 0
    assert record.outbox.replay(destination="ris", study_uid="1.2.3.1") == 1
    assert record.outbox.replay(since=after(3)) == 2
    assert record.outbox.replay(states=[OutboxState.REFUSED]) == 1
    assert record.outbox.replay(states=[OutboxState.SUPERSEDED]) == 0
    assert record.outbox.counts() == {
        "pacs": {OutboxState.PENDING: 1, OutboxState.SENDING: 0, OutboxState.REFUSED: 0},
        "ris": {OutboxState.PENDING: 3, OutboxState.SENDING: 0, OutboxState.REFUSED: 0},
    }


def test_what_a_replay_sends_is_not_superseded_unsent(record: Record) -> None:
    """The destination may hold it from the first time: its successor must name it."""
    record.film(1, outcome=read(0.1))
    sent(record, record.deliver())
    record.outbox.replay()
    record.film(2, outcome=read(0.9))
    first = record.deliver()
    assert first.flag.revision == 1
    sent(record, first)
    assert record.deliver().flag.predecessor == 1


def test_couriers_never_share_a_flag_nor_overtake(record: Record) -> None:
    for study in range(15):
        record.film(1, study, read(0.1))
    firsts = record.outbox.claim("pacs", "courier", 15, LEASE, NOW)
    for study in range(15):
        record.film(2, study, read(0.9))
    for delivery in firsts:
        record.outbox.retry(delivery.id, "courier", "", NOW)
    order: list[tuple[str, int]] = []

    def work(number: int) -> None:
        while taken := record.outbox.claim("pacs", f"c{number}", 1, LEASE, NOW):
            for delivery in taken:
                order.append((delivery.flag.study_uid, delivery.flag.revision))
                record.outbox.sent(delivery.id, f"c{number}", RECEIPT, NOW)

    while len(order) < 30:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    assert len(set(order)) == len(order) == 30
    for study in range(15):
        assert [r for uid, r in order if uid == f"1.2.3.{study}"] == [1, 2]


def test_many_are_settled_in_one_step_and_what_was_not_tried_is_as_if_never_claimed(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), at=after(study))
    one, two, three = record.outbox.claim("pacs", "courier", 3, LEASE, after(9))
    at = after(10)
    assert record.outbox.settle("courier", [Sent(id=one.id, receipt=RECEIPT, at=at)], [two.id, three.id]) == set()
    assert (states(record, study=1), states(record, study=2)) == (["sent"], ["pending"])
    record.film(2, 2, read(0.95), at=after(11))
    assert states(record, study=2) == ["superseded", "pending"]
    assert record.deliver(at=after(12)).attempt == 1


def test_of_many_only_those_whose_lease_was_lost_are_not_noted(record: Record) -> None:
    for study in (1, 2):
        record.film(1, study, read(0.9), at=after(study))
    one, two = record.outbox.claim("pacs", "courier", 2, LEASE, after(9))
    record.outbox.retry(two.id, "courier", "", after(9))
    taken = record.deliver(at=after(9))
    assert taken.id == two.id
    lost = record.outbox.settle("other", [Sent(id=one.id, receipt=RECEIPT, at=NOW)], [two.id])
    assert lost == {one.id}
    assert states(record, study=1) == states(record, study=2) == ["sending"]


def test_when_it_was_first_taken_is_not_forgotten(record: Record) -> None:
    record.film(1)
    sent(record, record.deliver())
    record.outbox.replay()
    again = record.deliver(at=after(3600))
    record.outbox.sent(again.id, "courier", RECEIPT, after(3600))
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    assert results["deliveries"][0]["sent_at"] == NOW.isoformat()


def test_replay_ends_where_it_is_told(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), at=after(study))
        sent(record, record.deliver(at=after(9)))
    assert record.outbox.replay(since=after(2), until=after(3)) == 1
    assert states(record, study=2) == ["pending"]


def test_what_was_refused_is_told_by_destination_and_words(record: Record) -> None:
    for study in (1, 2, 3, 4):
        urgency = Urgency.STAT if study == 3 else Urgency.URGENT
        record.film(1, study, read(0.9, urgency), audiences=(PACS, RIS), at=after(study))
    for destination, words in (("pacs", "add it there"), ("ris", "no such field"), ("ris", "no such field")):
        record.outbox.refuse(record.deliver(destination, after(9)).id, "courier", words, after(9))
    told = [(r.destination, r.words, r.flags, r.urgency, r.since) for r in record.outbox.refusals(9)]
    assert told == [
        ("ris", "no such field", 2, Urgency.STAT, after(1)),
        ("pacs", "add it there", 1, Urgency.STAT, after(3)),
    ]
    assert len(record.outbox.refusals(1)) == 1
    assert record.outbox.waiting_since() == {"pacs": after(1), "ris": after(2)}
