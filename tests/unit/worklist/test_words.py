"""What is recorded, as a person reads it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.decision import Consistency
from schemas.lifecycle import OutboxState, StudyState
from tests.unit.worklist.ward import NOW
from worker.worklist.web import words


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(seconds=-5), "< 1 min"),
        (timedelta(seconds=59), "< 1 min"),
        (timedelta(minutes=41, seconds=59), "41 min"),
        (timedelta(minutes=65), "1 h 05"),
        (timedelta(hours=52), "2 d 4 h"),
    ],
)
def test_waiting(ago: timedelta, said: str) -> None:
    assert words.waited(NOW - ago, NOW) == said


@pytest.mark.parametrize(("ms", "said"), [(83, "0.08 s"), (41_000, "41 s"), (180_000, "3 min"), (-5, "0.00 s")])
def test_after(ms: int, said: str) -> None:
    assert words.after(NOW, NOW + timedelta(milliseconds=ms)) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PHANTOM^ONE", "PHANTOM, ONE"),
        ("PHANTOM^ONE^MIDDLE^DR^JR", "PHANTOM, ONE MIDDLE DR JR"),
        ("PHANTOM", "PHANTOM"),
        ("^ONE", "ONE"),
        ("", ""),
        ("^^^^", ""),
        ("=山田^太郎=やまだ^たろう", "山田, 太郎"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("EVIL\u202eEMAN\x07^ONE", "EVILEMAN, ONE"),  # no direction override, no control character
    ],
)
def test_person(name: str, said: str) -> None:
    assert words.person(name) == said


def test_text_from_elsewhere_is_not_endless() -> None:
    assert len(words.sent("x" * 10_000)) == 200


@pytest.mark.parametrize(
    ("written", "said"), [("19610412", "1961-04-12"), ("1961", "1961"), ("", ""), ("?" * 8, "?" * 8)]
)
def test_date(written: str, said: str) -> None:
    assert words.date(written) == said


def test_a_reason_has_two_halves() -> None:
    said = "pneumothorax 0.91, threshold 0.62"
    assert (words.finding(said), words.threshold(said)) == ("pneumothorax 0.91", "threshold 0.62")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB"), (2**60, "1048576.0 TiB")]
)
def test_size(count: float, said: str) -> None:
    assert words.size(count) == said


def test_every_state_has_words() -> None:
    assert set(words.STATES) == set(StudyState)
    assert set(words.DELIVERIES) == set(OutboxState)
    assert set(words.CONSISTENCIES) == set(Consistency)
