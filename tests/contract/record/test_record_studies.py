"""Studies as a whole: final after a quiet period, and retention."""

from __future__ import annotations

from datetime import timedelta

from schemas.flag import Receipt
from schemas.lifecycle import StudyState
from tests.contract.record.given import NOW, Record, after, not_read, read

QUIET = timedelta(seconds=120)


def test_a_quiet_study_is_final(record: Record) -> None:
    record.film(1)
    assert record.studies.finalise(QUIET, after(119)) == 0
    assert record.studies.finalise(QUIET, after(120)) == 1
    assert record.studies.finalise(QUIET, after(999)) == 0
    assert record.worklist.rows(1)[0].state is StudyState.FINAL


def test_a_study_with_a_film_in_hand_is_not_final(record: Record) -> None:
    record.receive()
    record.claim()
    assert record.studies.finalise(QUIET, after(9999)) == 0


def test_only_bytes_of_old_final_studies_may_go(record: Record) -> None:
    record.film(1, 1, read(0.9))
    record.film(2, 1, not_read())
    record.film(1, 2)
    record.studies.finalise(QUIET, after(120))
    record.film(1, 3)  # read, not final
    record.receive(2, 2, at=after(130))  # a late film: not final any more
    assert record.studies.purgeable(after(0), 10) == []
    assert record.studies.purgeable(after(500), 10) == [(1, "1-1.dcm"), (2, "1-2.dcm")]
    assert record.studies.purgeable(after(500), 1) == [(1, "1-1.dcm")]


def test_a_file_that_another_row_needs_stays(record: Record) -> None:
    record.film(1, 1)
    record.studies.finalise(QUIET, after(120))
    record.receive(1, 2, content="1-1", at=after(200))  # the same bytes in another study
    assert record.studies.purgeable(after(150), 10) == []
    record.conclude(record.claim(at=after(200)), read(), at=after(200))
    record.studies.finalise(QUIET, after(400))
    assert record.studies.purgeable(after(150), 10) == []
    assert record.studies.purgeable(after(999), 10) == [(1, "1-1.dcm"), (2, "1-1.dcm")]


def test_what_was_let_go_is_not_offered_again_and_the_results_stay(record: Record) -> None:
    record.film(1, 1, read(0.9))
    record.film(2, 1, not_read())
    record.studies.finalise(QUIET, after(120))
    record.studies.purged([1])
    assert record.studies.purgeable(after(500), 10) == [(2, "1-2.dcm")]
    assert len(record.worklist.rows(10)) == 1
    record.studies.purged([2])
    assert record.studies.purgeable(after(500), 10) == []
    assert record.worklist.rows(10) == []
    results = record.worklist.results("1.2.3.1")
    assert results is not None
    assert (results["closed"], results["urgency"], results["films"][0]["path"]) == (True, "STAT", None)


def test_a_flag_still_on_its_way_arrives_after_its_study_was_closed(record: Record) -> None:
    record.film(1)
    record.studies.finalise(QUIET, after(120))
    record.studies.purged([1])
    record.outbox.sent(record.deliver().id, "courier", Receipt(object_id="1", proof="ok"), NOW)


def test_a_study_that_a_film_reached_meanwhile_stays_open(record: Record) -> None:
    record.film(1)
    record.studies.finalise(QUIET, after(120))
    record.receive(2, at=after(130))
    record.studies.purged([1])
    assert [row.state for row in record.worklist.rows(10)] == [StudyState.RECEIVING]
