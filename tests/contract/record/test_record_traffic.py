"""What goes through by the hour, and whether readers agree."""

from __future__ import annotations

from datetime import timedelta

from schemas.findings import Label
from schemas.flag import Withdrawal
from schemas.readings import Judgement
from tests.contract.record.given import NOW, Record, after, not_read, read
from worker.record.agreement import Judged, ReaderAgreement
from worker.record.readings import Readings
from worker.record.studies import one
from worker.record.traffic import Queue, Traffic


def test_the_queue_and_its_age(record: Record) -> None:
    traffic = Traffic(record.database)
    assert traffic.queue() == Queue(waiting=0, in_hand=0, failed=0, since=None)
    record.receive(1, 1, at=after(-50))
    record.claim(at=after(-1))
    record.receive(1, 2, at=after(-40))
    record.receive(1, 3)
    assert traffic.queue() == Queue(waiting=2, in_hand=1, failed=0, since=after(-50))
    record.jobs.rescue(after(3600), max_attempts=1)
    assert traffic.queue() == Queue(waiting=2, in_hand=0, failed=1, since=after(-40))
    assert traffic.kept().films == 3
    assert traffic.kept().size == 3000


def test_each_hour_has_its_own(record: Record) -> None:
    record.film(1, 1, read(0.9), at=after(-1))  # the hour before
    record.film(1, 2, read(0.9))
    record.film(2, 2, read(0.95), at=after(1))  # the same study, raised once more
    record.film(1, 3, read(0.1), at=after(2))
    record.film(1, 4, not_read(), at=after(3))
    record.film(1, 5, read(0.9), at=after(3600))
    record.studies.withdraw(one("1.2.3.2"), Withdrawal.PERSON, lambda news, told: [], after(3601))
    first, second = Traffic(record.database).hours(NOW, 2)
    assert (first.begins_at, first.read, first.not_analysed, first.flagged, first.films) == (NOW, 3, 1, 1, 4)
    assert (second.begins_at, second.read, second.not_analysed, second.flagged) == (after(3600), 1, 0, 1)
    (both,) = Traffic(record.database).hours(NOW, 1, timedelta(hours=2))
    assert (both.films, both.flagged) == (5, 2)


def test_readers_agree_by_finding_and_month(record: Record) -> None:
    readings = Readings(record.database)
    for study in (1, 2, 3, 4):
        record.film(1, study, read(0.9 if study < 4 else 0.1))
    readings.read("1.2.3.1", "anna", after(1), judgement=Judgement.AGREE)
    readings.read("1.2.3.2", "anna", after(2), judgement=Judgement.DISAGREE, findings=[Label.MASS])
    readings.read("1.2.3.3", "ben", after(3), judgement=Judgement.DISAGREE)
    readings.undo("1.2.3.3", "ben", after(4))
    readings.read("1.2.3.4", "ben", after(-86400 * 2), judgement=Judgement.DISAGREE, findings=[Label.EDEMA])
    agreement = ReaderAgreement(record.database)
    assert agreement.by_month(after(-9e6), after(9e6)) == [
        Judged(month="2026-03", finding="Pneumothorax", right=1, wrong=1, missed=0),
        Judged(month="2026-03", finding="Mass", right=0, wrong=0, missed=1),
        Judged(month="2026-02", finding="Edema", right=0, wrong=0, missed=1),
    ]
    assert agreement.by_month(after(0), after(2)) == [
        Judged(month="2026-03", finding="Pneumothorax", right=1, wrong=0, missed=0)
    ]


def test_a_word_after_the_flag_was_taken_back_is_of_that_flag(record: Record) -> None:
    record.film(1, 1, read(0.9))
    record.studies.withdraw(one("1.2.3.1"), Withdrawal.REPORTED, lambda news, told: [], after(1))
    Readings(record.database).judge("1.2.3.1", "anna", Judgement.DISAGREE, [], after(2))
    (said,) = ReaderAgreement(record.database).by_month(after(-9e6), after(9e6))
    assert (said.finding, said.wrong, said.flagged) == ("Pneumothorax", 1, 1)
