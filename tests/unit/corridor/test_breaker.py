from __future__ import annotations

from datetime import UTC, datetime, timedelta

from schemas.standing import Line
from worker.corridor.breaker import Breaker, BreakerRules

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
RULES = BreakerRules(pause=1.0, longest=60.0, trips=3)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_rests_grow_and_end_somewhere() -> None:
    breaker = Breaker("pacs", RULES, NOW)
    rests = [breaker.failed("away", NOW) for _ in range(12)]
    for n, rest in enumerate(rests, 1):
        assert 0.75 * min(60, 2**n) <= rest <= 1.25 * min(60, 2**n)
    assert breaker.standing.failures == 12


def test_rests_are_not_all_the_same() -> None:
    assert len({RULES.rest(3) for _ in range(20)}) > 1


def test_the_line_opens_at_the_third_failure_and_says_since_when() -> None:
    breaker = Breaker("pacs", RULES, NOW)
    breaker.failed("away", after(1))
    breaker.failed("away", after(2))
    assert (breaker.standing.line, breaker.standing.since) == (Line.CLOSED, NOW)
    breaker.failed("gone", after(3))
    assert (breaker.standing.line, breaker.standing.since) == (Line.OPEN, after(3))
    breaker.tries(after(9))
    assert (breaker.standing.line, breaker.standing.next_trial_at) == (Line.HALF_OPEN, None)
    breaker.answered(after(10))
    assert (breaker.standing.line, breaker.standing.since, breaker.is_sound) == (Line.CLOSED, after(10), True)


def test_success_starts_the_count_anew() -> None:
    breaker = Breaker("pacs", RULES, NOW)
    for _ in range(5):
        breaker.failed("away", NOW)
        breaker.failed("away", NOW)
        breaker.answered(NOW)
    assert breaker.standing.line is Line.CLOSED
