"""What there is to see."""

from __future__ import annotations

import json

from schemas.decision import Urgency
from schemas.flag import Receipt
from schemas.identity import Sender
from schemas.lifecycle import JobState, OutboxState
from schemas.not_analysed import NotAnalysed
from schemas.rejection import Rejection
from tests.contract.record.given import LEASE, NOW, PACS, RIS, Record, after, not_read, read


def test_the_most_urgent_first_then_who_waits_longest(record: Record) -> None:
    record.film(1, 1, read(0.1), at=after(0))
    record.film(1, 2, read(0.9), at=after(2))
    record.film(1, 3, read(0.9), at=after(1))
    record.film(1, 4, read(0.9, Urgency.URGENT), at=after(3))
    record.film(1, 5, not_read(), at=after(4))
    record.receive(1, 6, at=after(5))
    order = [row.study_uid[-1] for row in record.worklist.rows(10)]
    assert order == ["3", "2", "4", "1", "5", "6"]
    assert [row.study_uid[-1] for row in record.worklist.rows(2, 3)] == ["1", "5"]
    assert record.worklist.rows(5, 99) == []


def test_a_row_says_all(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=(PACS, RIS), at=after(1))
    record.film(2, outcome=not_read(), audiences=(PACS, RIS), at=after(2))
    record.film(3, outcome=not_read(), audiences=(PACS, RIS), at=after(3))
    record.receive(4, at=after(4))
    (row,) = record.worklist.rows(10)
    assert row.films == {JobState.READ: 1, JobState.NOT_ANALYSED: 2, JobState.SPOOLED: 1}
    assert row.not_analysed == (NotAnalysed.LATERAL,)
    assert (row.received_at, row.last_received_at, row.decided_at) == (after(1), after(4), after(3))
    assert (row.patient_name, row.patient_id, row.modality) == ("Phantom^Chest", "P1", "DX")
    assert [(d.destination, d.revision, d.state) for d in row.deliveries] == [
        ("pacs", 3, OutboxState.PENDING),
        ("ris", 3, OutboxState.PENDING),
    ]


def test_counts(record: Record) -> None:
    record.film(1, 1, read(0.9))
    record.film(1, 2, read(0.1))
    record.film(1, 3, not_read(NotAnalysed.MODEL_FAILED))
    record.receive(1, 4)
    record.receive(2, 4)
    record.claim()
    counts = record.worklist.counts()
    assert counts.studies == {Urgency.STAT: 1, Urgency.URGENT: 0, Urgency.ROUTINE: 3}
    assert counts.films == {JobState.SPOOLED: 1, JobState.READING: 1, JobState.FAILED: 1}


def test_the_whole_story_is_fit_for_json(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.film(1, 2, not_read())
    record.deliver()
    for study in (1, 2):
        results = record.worklist.results(f"1.2.3.{study}")
        assert json.loads(json.dumps(results)) == results
    assert record.worklist.results("9.9") is None


def test_the_token_changes_with_whatever_may_be_seen(record: Record) -> None:
    tokens = [record.worklist.change_token()]

    def changed() -> bool:
        tokens.append(record.worklist.change_token())
        return tokens[-1] != tokens[-2]

    assert not changed()
    record.receive(1)
    assert changed()
    record.receive(1)
    assert not changed()
    record.receive(2)
    assert changed()
    first, second = record.jobs.claim("reader", 2, LEASE, NOW)
    record.conclude(first, not_read())
    assert changed()
    record.conclude(second, read(0.9))
    assert changed()
    delivery = record.deliver()
    record.outbox.retry(delivery.id, "courier", "away", NOW)
    assert changed()
    record.outbox.sent(record.deliver().id, "courier", Receipt(object_id="1", proof="ok"), NOW)
    assert changed()
    record.outbox.replay()
    assert changed()
    record.jobs.requeue(None, [JobState.READ], NOW)
    assert changed()
    record.claim()
    record.jobs.rescue(after(61), 1)
    assert changed()
    record.studies.finalise(LEASE, after(999))
    assert changed()
    record.studies.purged([1, 2])
    assert changed()
    record.rejections.add(
        Rejection(sender=Sender(calling_ae="A", called_ae="B", address="::1"), what="w", mend="m", at=NOW)
    )
    assert changed()
