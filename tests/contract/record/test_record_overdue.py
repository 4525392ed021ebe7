"""Which destinations have not got what was decided some time ago: what an alarm is given for."""

from __future__ import annotations

from dataclasses import replace

from schemas.decision import Urgency
from schemas.flag import Receipt
from tests.contract.record.given import NOW, PACS, RIS, Record, after, read
from worker.record.outbox import Overdue

RECEIPT = Receipt(object_id="2.25.1", proof="C-STORE 0x0000")


def sent(record: Record, destination: str = "pacs", at: float = 0) -> None:
    record.outbox.sent(record.deliver(destination, after(at)).id, "courier", RECEIPT, after(at))


def test_by_destination_with_the_first_and_the_last_error(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), audiences=(PACS, RIS), at=after(study))
    assert record.outbox.overdue(NOW) == []
    first = record.deliver("ris", after(9))
    record.outbox.retry(first.id, "courier", "ris:2575: nothing listens there", after(10))
    again = record.deliver("ris", after(11))
    record.outbox.retry(again.id, "courier", "ris:2575: no answer", after(20))
    sent(record, "pacs", 9)
    assert record.outbox.overdue(after(2)) == [
        Overdue(destination="pacs", flags=1, since=after(2), last_error=""),
        Overdue(destination="ris", flags=2, since=after(1), last_error="ris:2575: no answer"),
    ]


def test_what_is_under_way_is_not_there_yet(record: Record) -> None:
    record.film(1)
    record.deliver()
    assert [overdue.flags for overdue in record.outbox.overdue(NOW)] == [1]


def test_what_was_refused_waits_until_its_successor_is_there(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    record.outbox.refuse(record.deliver().id, "courier", "SOP class refused: mend it", NOW)
    (overdue,) = record.outbox.overdue(NOW)
    assert overdue.last_error == "SOP class refused: mend it"
    record.film(2, outcome=read(0.9), at=after(5))
    assert [(o.refused, o.since) for o in record.outbox.overdue(after(5))] == [(False, after(5)), (True, NOW)]
    sent(record, at=6)
    assert record.outbox.overdue(after(9)) == []


def test_what_was_there_once_is_not_overdue_when_it_is_told_again(record: Record) -> None:
    record.film(1, outcome=read(0.9, Urgency.URGENT))
    sent(record)
    assert record.outbox.replay() == 1
    assert record.outbox.overdue(after(999)) == []


def test_what_was_taken_and_not_kept_is_overdue(record: Record) -> None:
    """Storage Commitment that was refused."""
    record.film(1)
    record.outbox.sent(record.deliver().id, "courier", replace(RECEIPT, proven=False), NOW)
    record.outbox.committed(RECEIPT.object_id, kept=False, words="not kept: mend it", now=NOW)
    assert [overdue.last_error for overdue in record.outbox.overdue(NOW)] == ["not kept: mend it"]
