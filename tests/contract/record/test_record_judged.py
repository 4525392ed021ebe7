"""What people said of studies, beside what a model said of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.context import MessageId, SignedReport, Verdict
from schemas.findings import FINDINGS, Label
from schemas.readings import Judgement
from tests.contract.record.given import MODEL, NOW, Record, after, read
from worker.record.context import Context
from worker.record.judged import Judged, JudgedStudy
from worker.record.readings import Readings

NOTHING = {**dict.fromkeys(map(str, FINDINGS), False), "binary": False}


def ask(record: Record, *, model: str = MODEL.id, since: timedelta = timedelta(days=1)) -> list[JudgedStudy]:
    return Judged(record.database).studies(model, NOW - since, 100)


def report(record: Record, verdict: Verdict | None, *findings: Label, study: int = 1) -> None:
    said = SignedReport(
        study_uid=f"1.2.3.{study}", report_id="R1", verdict=verdict, rule="test", findings=findings, said_at=after(5)
    )
    message = MessageId(sender="RIS", control_id=str(study), digest=f"sha-{study}")
    Context(record.database).take(message, [said], lambda news, told: [], after(5))


def judge(record: Record, judgement: Judgement, *findings: Label, study: int = 1) -> None:
    turn = Readings(record.database).judge(f"1.2.3.{study}", "reader", judgement, findings, after(6))
    assert turn.done


def test_a_study_counts_by_its_highest_film(record: Record) -> None:
    record.film(1, outcome=read(0.2))
    record.film(2, outcome=read(0.7))
    record.film(1, study=2, outcome=read(0.9))  # of which nobody said anything
    judge(record, Judgement.AGREE)
    (study,) = ask(record)
    assert study.scores["Pneumothorax"] == study.scores["binary"] == pytest.approx(0.7)
    assert study.scores["Mass"] == pytest.approx(0.01)


def test_agreeing_is_of_what_was_flagged(record: Record) -> None:
    record.film(1, outcome=read(0.7))
    judge(record, Judgement.AGREE)
    (study,) = ask(record)
    assert (study.judged, study.reported) == ({"Pneumothorax": True}, {})


def test_disagreeing_is_of_what_was_flagged_and_what_is_seen_instead_is_there(record: Record) -> None:
    record.film(1, outcome=read(0.7))
    judge(record, Judgement.DISAGREE, Label.MASS)
    (study,) = ask(record)
    assert study.judged == {"Pneumothorax": False, "Mass": True, "binary": True}


def test_of_a_study_without_a_flag_a_reader_says_what_is_missed(record: Record) -> None:
    record.film(1, outcome=read(0.1))
    record.film(1, study=2, outcome=read(0.1))
    judge(record, Judgement.DISAGREE, Label.PNEUMOTHORAX)
    judge(record, Judgement.AGREE, study=2)
    assert [study.judged for study in ask(record)] == [{"Pneumothorax": True, "binary": True}, {}]


def test_what_was_said_before_or_of_another_model_does_not_count(record: Record) -> None:
    record.film(1, outcome=read(0.7))
    judge(record, Judgement.AGREE)
    assert ask(record, model="another") == []
    assert ask(record, since=timedelta(seconds=-10)) == []


def test_reports_say_what_is_there_and_what_is_not(record: Record) -> None:
    for study in range(1, 5):
        record.film(1, study=study, outcome=read(0.7))
    report(record, Verdict.POSITIVE, Label.MASS, study=1)
    report(record, Verdict.NEGATIVE, study=2)
    report(record, Verdict.POSITIVE, study=3)
    report(record, None, study=4)
    judge(record, Judgement.AGREE, study=1)
    assert [study.reported for study in ask(record)] == [
        {**NOTHING, "Mass": True, "binary": True},
        NOTHING,
        {"binary": True},
    ]
    assert ask(record)[0].judged == {"Pneumothorax": True}
