"""What the channels to a PACS ask of the record: as what a revision was sent, who may answer, where a film is."""

from __future__ import annotations

from schemas.flag import Receipt
from schemas.lifecycle import OutboxState
from tests.contract.record.given import PACS, RIS, Record, after, instance, read


def test_a_predecessor_is_named_as_what_it_was_sent(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    first = record.deliver()
    assert first.flag.predecessor_object_id == ""
    record.outbox.sent(first.id, "courier", Receipt(object_id="2.25.1", proof="C-STORE 0x0000"), after(1))
    record.film(2, outcome=read(0.9))
    second = record.deliver(at=after(2))
    assert (second.flag.predecessor, second.flag.predecessor_object_id) == (1, "2.25.1")
    record.outbox.sent(second.id, "courier", Receipt(object_id="2.25.2", proof="C-STORE 0x0000"), after(3))


def test_of_two_pacs_with_the_same_object_each_answers_for_itself(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=(PACS, RIS))
    for name in ("pacs", "ris"):
        delivery = record.deliver(name, after(1))
        receipt = Receipt(object_id="2.25.1", proof="C-STORE 0x0000", proven=False)
        record.outbox.sent(delivery.id, "courier", receipt, after(2))

    def committed(kept: bool, *names: str) -> int:
        return record.outbox.committed("2.25.1", kept=kept, words="said", now=after(3), destinations=names)

    assert committed(True) == 0, "for nobody"
    assert committed(True, "pacs") == 1
    assert committed(False, "pacs", "ris") == 1
    story = record.worklist.results("1.2.3.1")
    assert story is not None
    told = {d["destination"]: (d["state"], d["proven_at"]) for d in story["deliveries"]}
    assert told == {"pacs": (OutboxState.SENT, after(3).isoformat()), "ris": (OutboxState.REFUSED, None)}


def test_a_film_is_where_its_current_version_is(record: Record) -> None:
    film = instance()
    assert record.instances.path_of(film.study_uid, film.sop_uid) is None
    record.receive(1, content="first")
    assert record.instances.path_of(film.study_uid, film.sop_uid) == "first.dcm"
    record.receive(1, content="second", at=after(1))
    assert record.instances.path_of(film.study_uid, film.sop_uid) == "second.dcm"
    assert record.instances.path_of("1.2.3.9", film.sop_uid) is None


def test_a_film_that_was_let_go_is_nowhere(record: Record) -> None:
    film = instance()
    received = record.receive(1)
    record.conclude(record.claim(), read(0.1))
    record.studies.purged([received.job_id])
    assert record.instances.path_of(film.study_uid, film.sop_uid) is None
