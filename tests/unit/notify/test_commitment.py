"""What an answer to a request for Storage Commitment says, and to whom it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from schemas.errors import RecordError
from worker.notify import commitment
from worker.notify.commitment import REASONS, Answer, Reports, answers, request, why


def reference(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = ComprehensiveSRStorage
    item.add_new("ReferencedSOPInstanceUID", "UI", uid)
    if reason is not None:
        item.FailureReason = reason
    return item


def report(*kept: str, failed: dict[str, int | None] | None = None) -> Dataset:
    information = Dataset()
    information.TransactionUID = "1.2.3"
    information.ReferencedSOPSequence = [reference(uid) for uid in kept]
    information.FailedSOPSequence = [reference(uid, reason) for uid, reason in (failed or {}).items()]
    return information


def test_a_request_names_the_object_under_a_transaction_of_its_own() -> None:
    first, again = request(ComprehensiveSRStorage, "2.25.1"), request(ComprehensiveSRStorage, "2.25.1")
    (item,) = first.ReferencedSOPSequence
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (ComprehensiveSRStorage, "2.25.1")
    assert first.TransactionUID != again.TransactionUID, "PS3.4 J.3.3: never used again"
    assert len(first.TransactionUID) <= 64


def test_each_object_has_its_answer() -> None:
    said = list(answers(report("2.25.1", "2.25.2", failed={"2.25.3": 0x0112}), "PACS"))
    assert [(answer.object_id, answer.kept) for answer in said] == [
        ("2.25.1", True),
        ("2.25.2", True),
        ("2.25.3", False),
    ]
    assert said[0].words == "Storage Commitment by PACS"
    assert "does not hold the object" in said[2].words


def test_what_names_no_object_is_passed_over() -> None:
    assert list(answers(Dataset(), "PACS")) == []
    assert list(answers(report("", "no uid", failed={"../x": 0x0110}), "PACS")) == []


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_has_its_code_and_its_mend(code: int) -> None:
    words = why(code)
    assert f"0x{code:04X}" in words
    assert "replay" in words or "set commitment = false" in words


@pytest.mark.parametrize(
    ("code", "shown"), [(0xC999, "0xC999"), (None, "does not say why"), ("0110", "does not say why")]
)
def test_a_reason_that_nobody_knows_sends_one_to_the_log(code: object, shown: str) -> None:
    assert shown in why(code)
    assert "look at its log" in why(code)


def noted(told: Callable[[Answer], int], information: Callable[[], Dataset], patience: float = 0.0) -> int:
    return Reports(told, patience=patience).note(information, "PACS")


def test_a_report_may_be_ahead_of_the_note_that_the_object_was_sent() -> None:
    asked: list[Answer] = []

    def told(answer: Answer) -> int:
        asked.append(answer)
        return int(len(asked) == 3)

    assert noted(told, lambda: report("2.25.1"), patience=10.0) == commitment.SUCCESS
    assert len(asked) == 3


def test_patience_is_for_the_report_and_not_for_each_of_its_objects() -> None:
    asked: list[str] = []

    def told(answer: Answer) -> int:
        asked.append(answer.object_id)
        return 0

    uids = [f"2.25.{n}" for n in range(1, 200)]
    assert noted(told, lambda: report(*uids), patience=0.1) == commitment.SUCCESS
    assert sorted(set(asked)) == sorted(uids)


def test_a_record_that_is_away_is_a_processing_failure(caplog: pytest.LogCaptureFixture) -> None:
    def told(_: Answer) -> int:
        raise RecordError("the database is away")

    assert noted(told, lambda: report("2.25.1")) == commitment.PROCESSING_FAILURE
    assert "commitment-not-noted" in caplog.text


def test_bytes_that_are_no_report_are_an_invalid_argument(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Dataset:
        raise ValueError("Doe^Jane")

    assert noted(lambda _: 1, broken) == commitment.INVALID_ARGUMENT
    assert "Doe" not in caplog.text


def test_what_is_kept_of_ours_is_told_quietly_and_anything_else_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        noted(lambda _: 1, lambda: report("2.25.1"))
        noted(lambda _: 0, lambda: report("2.25.2"))
        noted(lambda _: 1, lambda: report(failed={"2.25.3": 0x0112}))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
