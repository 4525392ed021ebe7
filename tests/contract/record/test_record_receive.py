"""Door 1."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest

from schemas.decision import Urgency
from schemas.errors import RecordError
from schemas.identity import Sender, StudyContext
from schemas.lifecycle import JobState, StudyState
from schemas.not_analysed import NotAnalysed
from tests.contract.record.given import LEASE, NOW, Record, after, file, instance, not_read, read


def test_a_new_instance_waits_to_be_read(record: Record) -> None:
    received = record.receive(1, context=StudyContext(patient_name="Phantom^Chest", accession_number="A1"))
    assert (received.outcome, received.version) == ("new", 1)
    (row,) = record.worklist.rows(10)
    assert (row.study_uid, row.state, row.urgency, row.revision) == (
        "1.2.3.1",
        StudyState.RECEIVING,
        Urgency.ROUTINE,
        0,
    )
    assert row.films == {JobState.SPOOLED: 1}
    assert row.received_at == NOW
    assert (row.patient_name, row.accession_number) == ("Phantom^Chest", "A1")
    job = record.claim()
    assert job.id == received.job_id
    assert job.instance == instance(1)
    assert (job.path, job.version, job.attempt, job.called_ae) == ("1-1.dcm", 1, 1, "HILUM")
    assert job.received_at == NOW
    assert job.context.accession_number == "A1"


def test_the_same_bytes_again_are_a_no_op(record: Record) -> None:
    first = record.receive()
    again = record.receive(at=after(5))
    assert again.outcome == "same"
    assert (again.job_id, again.version) == (first.job_id, 1)
    assert len(record.jobs.claim("reader", 10, LEASE, after(5))) == 1


def test_the_same_bytes_of_a_read_film_are_not_read_again(record: Record) -> None:
    record.film(1)
    assert record.receive(1).outcome == "same"
    assert record.jobs.claim("reader", 10, LEASE, NOW) == []
    assert record.worklist.rows(1)[0].state is StudyState.READ


def test_other_bytes_under_the_same_uid_are_a_second_version_and_count(record: Record) -> None:
    first = record.receive(content="a")
    second = record.receive(content="b")
    assert (second.outcome, second.version) == ("version", 2)
    assert second.job_id != first.job_id
    assert record.worklist.rows(1)[0].films == {JobState.SPOOLED: 1}
    assert [job.version for job in record.jobs.claim("reader", 10, LEASE, NOW)] == [1, 2]
    assert record.receive(content="a").outcome == "same"


def test_one_uid_in_two_studies_is_two_films(record: Record) -> None:
    """A modality that counts its UIDs from the start again must not hide the film of another patient."""
    record.instances.receive(instance(1, 1), file("a"), *_rest())
    other = record.instances.receive(replace(instance(1, 2), sop_uid=instance(1, 1).sop_uid), file("b"), *_rest())
    assert other.outcome == "new"
    assert len(record.jobs.claim("reader", 10, LEASE, NOW)) == 2


def _rest() -> tuple[Sender, StudyContext, Urgency, datetime]:
    return Sender(calling_ae="A", called_ae="B", address="::1"), StudyContext(), Urgency.ROUTINE, NOW


def test_a_resend_of_a_failed_film_is_a_fresh_chance(record: Record) -> None:
    record.film(1, outcome=not_read(NotAnalysed.MODEL_FAILED))
    assert record.worklist.rows(1)[0].films == {JobState.FAILED: 1}
    assert record.receive(1, at=after(9)).outcome == "same"
    row = record.worklist.rows(1)[0]
    assert (row.state, row.not_analysed, row.films) == (StudyState.RECEIVING, (), {JobState.SPOOLED: 1})
    assert record.claim(at=after(9)).attempt == 1


def test_a_late_film_reopens_a_final_study(record: Record) -> None:
    record.film(1)
    record.studies.finalise(LEASE, after(120))
    assert record.worklist.rows(1)[0].state is StudyState.FINAL
    record.receive(2, at=after(130))
    row = record.worklist.rows(1)[0]
    assert (row.state, row.received_at, row.last_received_at) == (StudyState.RECEIVING, NOW, after(130))


def test_the_latest_word_on_a_study_counts_and_none_is_forgotten(record: Record) -> None:
    record.receive(1, context=StudyContext(patient_name="Old^Name", accession_number="A1", modality="CR"))
    record.receive(2, context=StudyContext(patient_name="New^Name", modality="SR"))
    row = record.worklist.rows(1)[0]
    assert (row.patient_name, row.accession_number, row.modality) == ("New^Name", "A1", "CR")


def test_hostile_text_is_kept_as_far_as_a_database_can(record: Record) -> None:
    name = "Nul\0^\udcffSurrogate" + "x" * 100_000
    record.receive(context=StudyContext(patient_name=name, study_description="'; DROP TABLE jobs; --"))
    row = record.worklist.rows(1)[0]
    assert row.patient_name == "Nul^?Surrogate" + "x" * 100_000
    assert row.study_description == "'; DROP TABLE jobs; --"


def test_naive_times_are_refused(record: Record) -> None:
    with pytest.raises(RecordError):
        record.receive(at=datetime(2026, 1, 1))  # noqa: DTZ001
    assert record.worklist.rows(10) == []


def test_paths_are_those_that_rows_point_to(record: Record) -> None:
    record.receive(content="a")
    record.receive(content="b")
    job = record.receive(2, content="c")
    record.studies.purged([job.job_id])
    assert record.instances.paths() == {"a.dcm", "b.dcm"}


def test_many_threads_may_receive_one_study_at_once(record: Record) -> None:
    with ThreadPoolExecutor(16) as pool:
        received = list(pool.map(lambda n: record.receive(n % 20, content=f"{n % 40}"), range(80)))
    outcomes = [r.outcome for r in received]
    assert (outcomes.count("new"), outcomes.count("version"), outcomes.count("same")) == (20, 20, 40)
    assert {r.job_id for r in received} == {job.id for job in record.jobs.claim("reader", 100, LEASE, NOW)}
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    versions = [(film["sop_uid"], film["version"]) for film in results["films"]]
    assert len(set(versions)) == len(versions) == 40
    assert sum(film["current"] for film in results["films"]) == 20
    assert all(film["version"] == 2 for film in results["films"] if film["current"])


def test_a_study_sent_again_after_its_bytes_were_let_go_is_back_with_its_results(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.studies.finalise(LEASE, after(120))
    record.studies.purged([job_id for job_id, _ in record.studies.purgeable(after(500), 10)])
    assert record.worklist.rows(10) == []
    assert record.receive(1, at=after(900)).outcome == "same"
    assert record.instances.paths() == {"1-1.dcm"}
    assert record.worklist.rows(10)[0].urgency is Urgency.STAT
    assert record.jobs.claim("reader", 10, LEASE, after(900)) == []
    assert record.studies.purgeable(after(1000), 10) == [(1, "1-1.dcm")]
