"""Scanners: what they are known by, when their films count as others, and when an alarm is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from schemas.not_analysed import NotAnalysed
from schemas.outcome import NotRead, Read
from schemas.scanner import Scanner
from schemas.watching import DriftRules, Measure
from tests.contract.record.given import LEASE, MODEL, NOW, Record, read
from worker.record.drift import Drift

RULES = DriftRules(films=40, recent=timedelta(days=2), learning=timedelta(days=8))
ROOM = Scanner(manufacturer="Acme", model="DR 9000", view="PA", bits_stored=12)
OTHER = Scanner(manufacturer="Acme", model="DR 9000", view="PA", bits_stored=14)
LOW, HIGH = (0.11, 0.21, 0.31, 0.41, 0.51), (0.53, 0.63, 0.73, 0.83, 0.93)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


class Ward:
    """Films of scanners by the day."""

    def __init__(self, record: Record) -> None:
        self.record, self.drift, self.films = record, Drift(record.database), 0

    def take(self, outcomes: Sequence[Read | NotRead], at: datetime) -> None:
        """One film for each outcome."""
        for _ in outcomes:
            self.films += 1
            self.record.receive(self.films, self.films, at=at)
        for job, outcome in zip(self.record.jobs.claim("reader", len(outcomes), LEASE, at), outcomes, strict=True):
            self.record.conclude(job, outcome, at=at)

    def read(
        self,
        count: int,
        at: float,
        scores: tuple[float, ...] = LOW,
        scanner: Scanner = ROOM,
        *,
        remarks: tuple[str, ...] = (),
        model: str = MODEL.id,
    ) -> None:
        outcomes = []
        for number in range(count):
            said = read(scores[number % len(scores)])
            said = replace(said, prediction=replace(said.prediction, model_id=model), remarks=remarks, scanner=scanner)
            outcomes.append(said)
        self.take(outcomes, day(at))

    def turned_away(self, count: int, at: float, scanner: Scanner | None = ROOM) -> None:
        self.take([NotRead(code=NotAnalysed.BLANK, scanner=scanner)] * count, day(at))

    def known(self) -> None:
        """A baseline of the first day."""
        self.read(40, 0)
        self.drift.watch(RULES, day(0.1))
        assert self.drift.watch(RULES, day(0.2)) == []
        assert self.drift.look(RULES, day(0.2)).scanners[0].before is not None


@pytest.fixture
def ward(record: Record) -> Ward:
    return Ward(record)


def test_a_record_without_films_has_nothing_to_say(ward: Ward) -> None:
    assert ward.drift.watch(RULES, day(1)) == []
    assert ward.drift.look(RULES, day(1)).scanners == ()


def test_films_are_counted_by_what_they_were_made_with(ward: Ward) -> None:
    ward.read(3, 0)
    ward.read(2, 0, HIGH, remarks=("polarity-corrected", "window-ignored"))
    ward.turned_away(1, 0)
    ward.read(1, 0, scanner=OTHER)
    ward.turned_away(5, 0, scanner=None)  # not even their header could be read
    look = ward.drift.look(RULES, day(0.1))
    assert look.model_id == MODEL.id
    room, other = look.scanners
    assert (room.scanner, room.now.films, room.now.read, room.now.not_analysed, room.now.polarity) == (ROOM, 6, 5, 1, 2)
    assert [n for n, count in enumerate(room.now.scores) if count] == [5, 10, 15, 26, 31]
    assert (other.scanner, other.now.films) == (OTHER, 1)
    assert other.scanner.words == "Acme DR 9000, PA, 14 bit"


def test_the_first_films_are_the_baseline(ward: Ward) -> None:
    ward.read(39, 0)
    ward.drift.watch(RULES, day(0.1))
    ward.drift.watch(RULES, day(0.2))
    (room,) = ward.drift.look(RULES, day(0.2)).scanners
    assert (room.before, room.learning.films) == (None, 39)
    ward.read(1, 0.3)
    ward.drift.watch(RULES, day(0.4))
    ward.read(60, 1, HIGH)
    (room,) = ward.drift.look(RULES, day(1)).scanners
    assert room.before is not None
    assert room.before.films == 40


def test_scores_that_are_spread_otherwise_alarm_once_until_they_are_not(ward: Ward) -> None:
    ward.known()
    ward.read(40, 3)
    assert ward.drift.watch(RULES, day(3.1)) == []
    ward.read(40, 6, HIGH)
    (alarm,) = ward.drift.watch(RULES, day(6.1))
    assert (alarm.scanner, alarm.measure) == (ROOM, Measure.SCORES)
    assert alarm.value > alarm.limit
    assert "the scores are not spread as they were" in alarm.words
    assert ward.drift.watch(RULES, day(6.2)) == []
    assert ward.drift.untold() == [alarm]
    ward.drift.told(alarm, day(6.2))
    assert ward.drift.untold() == []
    ward.read(3, 8.5)  # too few to say
    assert ward.drift.watch(RULES, day(8.6)) == []
    assert len(ward.drift.alarms(10, only_open=True)) == 1
    ward.read(40, 8.7)
    assert ward.drift.watch(RULES, day(9)) == []
    assert ward.drift.alarms(10, only_open=True) == []
    (over,) = ward.drift.untold()
    assert over.ended_at == day(9)
    ward.drift.told(over, day(9))
    assert ward.drift.untold() == []


def test_more_films_that_are_not_analysed_or_inverted_alarm(ward: Ward) -> None:
    ward.known()
    ward.read(20, 3)
    ward.read(20, 3, remarks=("polarity-corrected",))
    ward.turned_away(40, 3)
    found = ward.drift.watch(RULES, day(3.1))
    assert {alarm.measure for alarm in found} == {Measure.NOT_ANALYSED, Measure.POLARITY}
    assert all(alarm.value == 0.5 for alarm in found)
    assert any("50% films that came inverted" in alarm.words for alarm in found)


def test_what_chance_does_is_no_alarm(ward: Ward) -> None:
    ward.known()
    ward.read(17, 3)
    ward.read(5, 3, HIGH)
    ward.turned_away(2, 3)
    assert ward.drift.watch(RULES, day(3.1)) == []


def test_a_scanner_that_comes_later_is_told_once(ward: Ward) -> None:
    ward.known()
    ward.read(5, 1, scanner=OTHER)  # a site that is new to hilum: whatever comes in these days is simply there
    assert ward.drift.watch(RULES, day(1.1)) == []
    third = replace(ROOM, model="DR 9001")
    ward.read(5, 20, scanner=third)
    assert [a.measure for a in ward.drift.watch(RULES, day(20.1)) if a.scanner == third] == [Measure.NEW]
    assert ward.drift.watch(RULES, day(20.2)) == []
    ward.read(40, 21, scanner=third)
    for at in (21.1, 21.2):
        ward.drift.watch(RULES, day(at))
    assert ward.drift.alarms(10, only_open=True) == []


def test_a_model_that_is_new_learns_anew(ward: Ward) -> None:
    ward.known()
    ward.read(40, 3, HIGH)
    assert len(ward.drift.watch(RULES, day(3.1))) == 1
    ward.read(10, 3.2, HIGH, model="another")
    assert ward.drift.watch(RULES, day(3.3)) == []
    assert ward.drift.alarms(10, only_open=True) == []
    (room,) = ward.drift.look(RULES, day(3.3)).scanners
    assert (room.before, room.now.read, room.is_new) == (None, 10, False)


def test_a_baseline_that_is_set_aside_is_made_of_later_films(ward: Ward) -> None:
    ward.known()
    ward.read(40, 3, HIGH)
    ward.drift.watch(RULES, day(3.1))
    (room,) = ward.drift.look(RULES, day(3.1)).scanners
    assert room.number is not None
    assert ward.drift.set_aside(room.number, "anna", day(3.2))
    assert not ward.drift.set_aside(room.number, "anna", day(3.2))
    assert not ward.drift.set_aside(4711, "anna", day(3.2))
    ward.drift.watch(RULES, day(3.3))
    assert ward.drift.alarms(10, only_open=True) == []
    (room,) = ward.drift.look(RULES, day(3.3)).scanners
    assert (room.before, room.learning.films) == (None, 0)
    ward.read(40, 3.4, HIGH)
    ward.drift.watch(RULES, day(3.5))
    (room,) = ward.drift.look(RULES, day(3.5)).scanners
    assert room.before is not None
    assert not any(shift.is_over for shift in room.shifts)
