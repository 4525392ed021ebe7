"""What the hospital says of orders, patients and reports, and what follows from it for studies and their flags."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.context import Content, Merge, MessageId, Order, PatientRef, PatientUpdate, SignedReport, Verdict
from schemas.decision import Urgency
from schemas.errors import RecordError
from schemas.findings import Label
from schemas.flag import Receipt, Withdrawal
from schemas.identity import StudyContext
from schemas.lifecycle import JobState
from schemas.tables import EarlyReportRow, MessageRow, OrderRow, PatientRow, ReportRow
from tests.contract.record.given import LEASE, PACS, RIS, Record, after, not_read, read
from worker.decide.routing import recipients
from worker.record import instances
from worker.record.context import REMEMBERED, Context, Taken
from worker.record.filing import Filed, file_under
from worker.record.second_look import SecondLook, SecondLooks

TASKS = replace(RIS, name="tasks", keeps_tasks=True)
EVERYBODY = (PACS, RIS, TASKS)
ROUTE = partial(recipients, EVERYBODY)
STUDY = "1.2.3.1"
NUMBERS = count(1)
P1, P2, P3 = (PatientRef(id=f"P{n}") for n in (1, 2, 3))


def film(accession: str = "A1", patient: str = "P1", **more: str) -> StudyContext:
    given = {"patient_name": "Phantom^Chest", "modality": "DX"} | more
    return StudyContext(patient_id=patient, accession_number=accession, **given)


def say(record: Record, *contents: Content, seconds: float = 1, number: str = "") -> Taken:
    """A message; each has a number of its own."""
    key = number or str(next(NUMBERS))
    message = MessageId(sender="RIS|HOSPITAL", control_id=key, digest=f"sha-{key}")
    return Context(record.database).take(message, contents, ROUTE, after(seconds))


def order(
    urgency: Urgency | None = Urgency.STAT, accession: str = "A1", *, seconds: float = 0, **more: object
) -> Order:
    given = {"filler_number": f"F-{accession}", "reason": "dyspnoea", "patient_id": "P1"} | more
    return Order(accession_number=accession, urgency=urgency, said_at=after(seconds), **given)  # type: ignore[arg-type]


def report(verdict: Verdict | None = Verdict.NEGATIVE, *, seconds: float = 0, **more: object) -> SignedReport:
    given = {"accession_number": "A1", "patients": (P1,), "report_id": "R1", "rule": "OBX-8 N"} | more
    return SignedReport(verdict=verdict, said_at=after(seconds), **given)  # type: ignore[arg-type]


def known(record: Record, study: str = STUDY) -> dict[str, object]:
    story = record.worklist.results(study)
    assert story is not None
    return story


def context(record: Record, study: str = STUDY) -> dict[str, str]:
    found = known(record, study)["context"]
    assert isinstance(found, dict)
    return found


def flagged(record: Record, probability: float = 0.9, **more: str) -> None:
    """Study 1 is read, and the PACS has its flag."""
    record.receive(1, context=film(**more))
    record.conclude(record.claim(), read(probability), audiences=EVERYBODY)
    deliver(record, "pacs")


def deliver(record: Record, name: str, seconds: float = 1) -> None:
    delivery = record.deliver(name, after(seconds))
    record.outbox.sent(delivery.id, "courier", Receipt(object_id=f"1.{name}", proof="ok"), after(seconds))


def rows(record: Record, table: type) -> int:
    return record.database.read(lambda c: len(c.execute(sa.select(table)).all()))


def second_looks(record: Record) -> list[SecondLook]:
    return SecondLooks(record.database).rows(10)


# Orders


@pytest.mark.parametrize("order_first", [True, False])
def test_a_stat_order_is_read_and_listed_first(record: Record, order_first: bool) -> None:
    record.receive(1, 1, context=film("A0"), at=after(0))
    if order_first:
        say(record, order())
    record.receive(1, 2, context=film("A1"), at=after(1))
    if not order_first:
        assert say(record, order()) == Taken(studies=1)
    assert [row.study_uid[-1] for row in record.worklist.rows(10)] == ["2", "1"]
    job = record.claim(at=after(2))
    assert (job.instance.study_uid[-1], job.order_urgency) == ("2", Urgency.STAT)
    record.conclude(job, read(0.1))
    (row, _) = record.worklist.rows(10)
    assert (row.urgency, row.ordered, row.reasons) == (Urgency.STAT, "ordered STAT", ())
    assert record.worklist.counts().studies[Urgency.STAT] == 1
    assert record.deliver(at=after(3)).flag.order_urgency is Urgency.STAT


def test_the_models_urgency_never_lowers_the_orders_nor_the_order_the_models(record: Record) -> None:
    say(record, order(Urgency.URGENT))
    flagged(record)
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT
    record.studies.withdraw(sa.select(sa.literal(1)), Withdrawal.PERSON, ROUTE, after(5))
    assert record.worklist.rows(10)[0].urgency is Urgency.URGENT
    say(record, order(Urgency.ROUTINE, seconds=6), seconds=6)
    assert record.worklist.rows(10)[0].urgency is Urgency.ROUTINE


def test_the_title_that_a_film_came_in_by_counts_in_the_queue(record: Record) -> None:
    say(record, order(Urgency.URGENT))
    record.receive(1, 1, context=film("A1"), order=Urgency.STAT)
    assert record.claim().order_urgency is Urgency.STAT


def test_a_cancelled_order_has_no_say_and_nothing_else_happens(record: Record) -> None:
    flagged(record, 0.1)
    say(record, order())
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT
    say(record, order(None, cancelled=True, seconds=1))
    (row,) = record.worklist.rows(10)
    assert (row.urgency, row.ordered, row.revision) == (Urgency.ROUTINE, "", 1)
    record.receive(2, context=film())
    assert record.claim().order_urgency is Urgency.ROUTINE


def test_an_older_word_does_not_overwrite_a_newer(record: Record) -> None:
    record.receive(1, context=film())
    say(record, order(Urgency.URGENT, seconds=2), seconds=3)
    assert say(record, order(Urgency.STAT, seconds=1), seconds=4) == Taken()
    assert record.worklist.rows(10)[0].urgency is Urgency.URGENT


def test_orders_of_one_accession_number_are_told_apart(record: Record) -> None:
    record.receive(1, context=film())
    say(record, order(Urgency.STAT, filler_number="F1"), order(Urgency.URGENT, filler_number="F2"))
    say(record, order(None, filler_number="F1", cancelled=True, seconds=1))
    assert record.worklist.rows(10)[0].urgency is Urgency.URGENT


def test_an_order_is_known_by_its_placer_number_before_it_has_another(record: Record) -> None:
    record.receive(1, context=film())
    say(record, order(accession="", filler_number="", placer_number="PL1"))
    assert record.worklist.rows(10)[0].urgency is Urgency.ROUTINE
    say(record, order(None, filler_number="F1", placer_number="PL1", seconds=1))  # the priority was said before
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT
    assert rows(record, OrderRow) == 1


def test_an_order_that_moves_to_another_number_takes_its_say_along(record: Record) -> None:
    record.receive(1, 1, context=film("A1"))
    record.receive(1, 2, context=film("A2"))
    say(record, order(accession="A1", filler_number="F"))
    say(record, order(accession="A2", filler_number="F", seconds=1))
    assert {row.study_uid[-1]: row.urgency for row in record.worklist.rows(10)} == {
        "1": Urgency.ROUTINE,
        "2": Urgency.STAT,
    }


# Patients


def test_a_corrected_name_is_told_anew_to_whoever_was_told(record: Record) -> None:
    flagged(record)
    update = PatientUpdate(patients=(P1,), name="Phantom^Thorax", birth_date="19610412", sex="F", said_at=after(0))
    assert say(record, update, seconds=2) == Taken(studies=1, told=1)
    flag = record.deliver("pacs", after(3)).flag
    assert (flag.revision, flag.predecessor, flag.urgency) == (2, 1, Urgency.STAT)
    assert [reason.finding for reason in flag.reasons] == ["Pneumothorax"]
    assert (flag.context.patient_name, flag.context.patient_birth_date, flag.context.patient_sex) == (
        "Phantom^Thorax",
        "19610412",
        "F",
    )
    # A second time it is no news, and a film that repeats the old name is filed under the new.
    assert say(record, update, seconds=4) == Taken()
    record.receive(2, context=film(), at=after(5))
    assert context(record)["patient_name"] == "Phantom^Thorax"


def test_nobody_hears_of_a_study_anew_who_did_not_hear_of_it(record: Record) -> None:
    record.receive(1, context=film())
    record.conclude(record.claim(), read(0.9), audiences=(PACS,))
    deliver(record, "pacs")
    say(record, PatientUpdate(patients=(P1,), name="New^Name", said_at=after(1)), seconds=2)
    assert record.deliver("pacs", after(3)).flag.context.patient_name == "New^Name"
    assert record.outbox.claim("ris", "courier", 9, LEASE, after(3)) == []


def test_what_was_not_yet_sent_is_overtaken_by_the_corrected(record: Record) -> None:
    record.receive(1, context=film())
    record.conclude(record.claim(), read(0.9))
    say(record, Merge(old=P1, new=P2, said_at=after(0)))
    flag = record.deliver("pacs", after(2)).flag
    assert (flag.revision, flag.context.patient_id) == (2, "P2")
    assert [row["state"] for row in known(record)["deliveries"]] == ["superseded", "sending"]  # type: ignore[attr-defined]


def test_results_follow_a_merged_patient_and_so_do_later_films(record: Record) -> None:
    flagged(record)
    record.receive(1, 2, context=film("A2", "P1"))
    record.receive(1, 3, context=film("A3", "P3"))
    update = PatientUpdate(patients=(P2,), name="Merged^Name", said_at=after(0))
    assert say(record, update, Merge(old=P1, new=P2, said_at=after(0))) == Taken(studies=2, told=1)
    assert known(record)["revision"] == 2, "told once, not once for each of the two"
    for study in ("1.2.3.1", "1.2.3.2"):
        assert (context(record, study)["patient_id"], context(record, study)["patient_name"]) == ("P2", "Merged^Name")
    assert context(record, "1.2.3.3")["patient_id"] == "P3"
    record.receive(1, 4, context=film("A4", "P1"))
    assert context(record, "1.2.3.4")["patient_id"] == "P2"
    record.receive(2, 1, context=film("A1", "P1"))
    assert context(record)["patient_id"] == "P2"


def test_merges_follow_one_another_and_may_be_turned_round(record: Record) -> None:
    say(record, Merge(old=P1, new=P2, said_at=after(0)), Merge(old=P2, new=P3, said_at=after(1)))
    record.receive(1, 1, context=film("A1", "P1"))
    assert context(record)["patient_id"] == "P3"
    say(record, Merge(old=P3, new=P1, said_at=after(2)))
    assert context(record)["patient_id"] == "P1"
    record.receive(1, 2, context=film("A2", "P2"))
    assert context(record, "1.2.3.2")["patient_id"] == "P1"
    assert say(record, Merge(old=P3, new=P2, said_at=after(1))) == Taken(), "older than what is known"


def test_the_same_number_of_another_hospital_is_another_patient(record: Record) -> None:
    record.receive(1, 1, context=film("A1", issuer_of_patient_id="NORTH"))
    record.receive(1, 2, context=film("A2", issuer_of_patient_id="SOUTH"))
    record.receive(1, 3, context=film("A3"))
    old, new = PatientRef(id="P1", issuer="NORTH"), PatientRef(id="P2", issuer="NORTH")
    say(record, Merge(old=old, new=new, said_at=after(0)))
    assert [context(record, f"1.2.3.{n}")["patient_id"] for n in (1, 2, 3)] == ["P2", "P1", "P2"]
    assert context(record, "1.2.3.3")["issuer_of_patient_id"] == "", "as the modality has it"


def test_an_older_correction_does_not_overwrite_a_newer(record: Record) -> None:
    record.receive(1, context=film())
    say(record, PatientUpdate(patients=(P1,), name="Newer^Name", said_at=after(5)))
    say(record, PatientUpdate(patients=(P1,), name="Older^Name", birth_date="19700101", said_at=after(4)))
    assert context(record)["patient_name"] == "Newer^Name"
    assert context(record)["patient_birth_date"] == ""


def test_a_withdrawn_flag_is_told_anew_as_withdrawn(record: Record) -> None:
    flagged(record)
    record.studies.withdraw(sa.select(sa.literal(1)), Withdrawal.PERSON, ROUTE, after(2))
    deliver(record, "pacs", 3)
    say(record, Merge(old=P1, new=P2, said_at=after(4)), seconds=5)
    flag = record.deliver("pacs", after(6)).flag
    assert (flag.withdrawn, flag.urgency, flag.reasons, flag.context.patient_id) == (
        Withdrawal.PERSON,
        Urgency.ROUTINE,
        (),
        "P2",
    )
    # What its films said before raises it no more.
    assert record.film(2, outcome=read(0.1), at=after(7)).urgency is Urgency.ROUTINE


# Reports


def test_a_signed_report_closes_the_reading_task(record: Record) -> None:
    flagged(record)
    deliver(record, "tasks")
    assert say(record, report(None)) == Taken(studies=1, told=1)
    assert record.worklist.rows(10) == []
    assert record.deliver("tasks", after(2)).flag.withdrawn is Withdrawal.REPORTED
    assert second_looks(record) == []


def test_model_positive_and_report_negative_is_looked_at_again_until_somebody_did(record: Record) -> None:
    flagged(record)
    say(record, report(Verdict.NEGATIVE, seconds=1), seconds=2)
    (row,) = second_looks(record)
    assert (row.study_uid, row.accession_number, row.patient_id) == (STUDY, "A1", "P1")
    assert (row.report, row.rule, row.model, row.model_words) == (
        Verdict.NEGATIVE,
        "OBX-8 N",
        Verdict.POSITIVE,
        ("pneumothorax 0.90, threshold 0.62",),
    )
    assert (row.said_at, row.received_at) == (after(1), after(2))
    looks = SecondLooks(record.database)
    assert looks.done(STUDY, after(3))
    assert looks.rows(10) == []
    assert not looks.done(STUDY, after(3))
    assert not looks.done("9.9", after(3))


def test_a_flag_that_a_person_withdrew_was_raised_all_the_same(record: Record) -> None:
    flagged(record)
    record.studies.withdraw(sa.select(sa.literal(1)), Withdrawal.PERSON, ROUTE, after(2))
    say(record, report(Verdict.NEGATIVE, seconds=3), seconds=3)
    assert len(second_looks(record)) == 1


def test_report_positive_and_model_negative_is_looked_at_again(record: Record) -> None:
    flagged(record, 0.1)
    say(record, report(Verdict.POSITIVE, rule="OBX-8 A"))
    (row,) = second_looks(record)
    assert (row.report, row.model, row.model_words) == (Verdict.POSITIVE, Verdict.NEGATIVE, ())


def test_a_finding_that_the_report_codes_is_compared_itself(record: Record) -> None:
    flagged(record, 0.9)  # raised for pneumothorax
    say(record, report(Verdict.POSITIVE, findings=(Label.EFFUSION,), rule="code 60046008"))
    (row,) = second_looks(record)
    assert (row.findings, row.model_words) == (("Effusion",), ("effusion 0.010, threshold 1.000",))
    say(record, report(Verdict.POSITIVE, findings=(Label.EFFUSION, Label.PNEUMOTHORAX), seconds=1), seconds=1)
    assert second_looks(record) == []


def test_agreement_and_what_is_not_known_are_not_listed(record: Record) -> None:
    flagged(record, 0.9)
    say(record, report(Verdict.POSITIVE))
    assert second_looks(record) == []
    record.receive(1, 2, context=film("A2"))
    record.conclude(record.claim(), not_read())
    for verdict in Verdict:
        say(record, report(verdict, accession_number="A2"))
    assert second_looks(record) == []


def test_a_film_that_is_read_after_its_report_is_compared_then(record: Record) -> None:
    record.receive(1, context=film())
    job = record.claim()
    say(record, report(Verdict.NEGATIVE))
    assert second_looks(record) == []
    assert record.conclude(job, read(0.9), at=after(2)).revision is None
    assert len(second_looks(record)) == 1
    record.jobs.requeue(STUDY, [JobState.READ], after(3))
    record.conclude(record.claim(at=after(3)), read(0.1), at=after(4))
    assert second_looks(record) == []


def test_a_corrected_report_takes_the_place_of_the_first(record: Record) -> None:
    flagged(record)
    say(record, report(Verdict.POSITIVE, seconds=1), seconds=1)
    say(record, report(Verdict.NEGATIVE, seconds=3, corrected=True), seconds=3)
    assert [row.corrected for row in second_looks(record)] == [True]
    SecondLooks(record.database).done(STUDY, after(4))
    assert say(record, report(Verdict.POSITIVE, seconds=2), seconds=5) == Taken(), "older"
    say(record, report(None, seconds=6), seconds=6)  # an addendum that says nothing of itself
    assert second_looks(record) == []
    say(record, report(Verdict.POSITIVE, seconds=7), seconds=7)
    say(record, report(Verdict.NEGATIVE, seconds=8), seconds=8)
    assert len(second_looks(record)) == 1, "who saw it saw another"


@pytest.mark.parametrize(
    ("named", "closes"),
    [
        ({"patients": (P2,)}, False),
        ({"patients": ()}, True),
        ({"patients": (P2, P1)}, True),
        ({"accession_number": "A9"}, False),
        ({"accession_number": "", "study_uid": STUDY}, True),
        ({"accession_number": "", "study_uid": STUDY, "patients": (P2,)}, False),
        ({"study_uid": "1.2.3.99"}, True),  # by the accession number
    ],
)
def test_a_report_is_of_the_study_and_the_patient(record: Record, named: dict[str, object], closes: bool) -> None:
    flagged(record)
    assert say(record, report(**named)).studies == int(closes)  # type: ignore[arg-type]
    assert (record.worklist.rows(10) == []) is closes


def test_a_report_under_the_old_number_of_a_merged_patient_is_his(record: Record) -> None:
    flagged(record)
    say(record, Merge(old=P1, new=P2, said_at=after(0)))
    assert say(record, report(patients=(P1,))).studies == 1


@pytest.mark.parametrize("named", [{}, {"study_uid": STUDY, "accession_number": ""}])
def test_a_report_that_comes_before_the_first_film_waits_for_it(record: Record, named: dict[str, object]) -> None:
    assert say(record, report(**named)) == Taken(studies=0)  # type: ignore[arg-type]
    record.receive(1, context=film(), at=after(10))
    assert record.conclude(record.claim(at=after(10)), read(0.9), at=after(11)).revision is None
    assert record.worklist.rows(10) == []
    (listed,) = second_looks(record)
    assert (listed.report, listed.model) == (Verdict.NEGATIVE, Verdict.POSITIVE)
    assert rows(record, EarlyReportRow) == 0
    assert record.film(2, outcome=read(0.8), at=after(20)).revision is None, "it came late with the first"
    assert record.film(3, outcome=read(0.8), at=after(900)).urgency is Urgency.STAT, "it was not reported"


def test_of_two_early_reports_the_later_stands_and_another_patients_is_nobodys(record: Record) -> None:
    say(record, report(Verdict.POSITIVE, seconds=5, corrected=True), number="2")
    say(record, report(Verdict.NEGATIVE, seconds=3), number="1")
    say(record, report(patients=(PatientRef(id="P9"),), seconds=9), number="3")
    record.receive(1, context=film(), at=after(10))
    stands = record.database.read(lambda c: c.execute(sa.select(ReportRow)).one())
    assert (stands.verdict, stands.corrected) == (Verdict.POSITIVE, True)
    assert rows(record, EarlyReportRow) == 1


def test_a_report_holds_no_text(record: Record) -> None:
    flagged(record)
    say(record, report())
    columns = set(record.database.read(lambda c: c.execute(sa.select(ReportRow)).one())._mapping)
    assert columns.isdisjoint({"text", "name", "patient_id"})


# Messages


def test_the_same_message_twice_changes_nothing_and_another_of_its_number_does(record: Record) -> None:
    record.receive(1, context=film())
    assert say(record, order(), number="7") == Taken(studies=1)
    assert say(record, order(Urgency.ROUTINE, seconds=1), number="7") == Taken(repeated=True)
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT
    other = MessageId(sender="RIS|HOSPITAL", control_id="7", digest="another")
    assert Context(record.database).take(other, [order(Urgency.URGENT)], ROUTE, after(2)).studies == 1


def test_messages_are_remembered_for_weeks_not_for_ever(record: Record) -> None:
    say(record, order(), seconds=0)
    say(record, report(accession_number="A9"), seconds=0)
    later = REMEMBERED.total_seconds() + 1
    say(record, order(), seconds=later)
    assert Context(record.database).forget(None, after(later)) == 3
    assert (rows(record, MessageRow), rows(record, EarlyReportRow)) == (1, 0)


def test_orders_and_patients_of_whom_nothing_is_said_are_forgotten(record: Record) -> None:
    say(record, order(accession="A1"), order(accession="A2"), seconds=1)
    say(record, Merge(old=P1, new=P2, said_at=after(1)), seconds=1)
    say(record, PatientUpdate(patients=(P2,), name="New^Name", said_at=after(100)), seconds=100)
    say(record, order(accession="A2", seconds=100), seconds=100)
    said = Context(record.database)
    assert said.forget(None, after(200)) == 0
    assert said.forget(after(50), after(200)) == 2
    assert (rows(record, OrderRow), rows(record, PatientRow)) == (1, 1)
    record.receive(1, context=film("A2", "P2"))
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT


def test_a_message_is_recorded_whole_or_not_at_all(record: Record) -> None:
    record.receive(1, context=film())
    bad = replace(order(), reason=None)  # type: ignore[arg-type]  as if the second order broke in the middle
    with pytest.raises((RecordError, AttributeError)):
        say(record, order(), bad, number="8")
    assert record.worklist.rows(10)[0].urgency is Urgency.ROUTINE
    assert say(record, order(), number="8") == Taken(studies=1)


def test_hostile_texts_are_stored_without_harm(record: Record) -> None:
    record.receive(1, context=film("A\0", "P\ud800"))
    say(record, order(accession="A\0", reason="\0\ud800'; DROP TABLE studies; --"))
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT


def test_a_film_and_the_word_about_it_that_arrive_together_do_not_miss_each_other(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, said = threading.Event(), threading.Event()

    def look_and_dawdle(*args: Any) -> Filed:
        filed = file_under(*args)
        looked.set()
        said.wait(1.0)
        return filed

    monkeypatch.setattr(instances, "file_under", look_and_dawdle)
    thread = threading.Thread(target=record.receive, args=(1,), kwargs={"context": film()})
    thread.start()
    assert looked.wait(30)
    say(record, order(), Merge(old=P1, new=P2, said_at=after(0)))
    said.set()
    thread.join(30)
    (row,) = record.worklist.rows(10)
    assert (row.urgency, row.patient_id) == (Urgency.STAT, "P2")
