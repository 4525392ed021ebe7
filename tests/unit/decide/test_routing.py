from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.outcome import Audience, News
from worker.decide.routing import recipients

NEWS = News(
    urgency=Urgency.URGENT,
    findings=frozenset({"Effusion"}),
    called_ae=frozenset({"HILUM", "ER"}),
    modality="DX",
    decided_at=datetime(2026, 3, 1, 12, 0).astimezone(),
)
ROUTINE = replace(NEWS, urgency=Urgency.ROUTINE, findings=frozenset())


def hears(news: News = NEWS, told: tuple[str, ...] = (), **asked: object) -> bool:
    return recipients([Audience(name="ris", **asked)], news, told) == ["ris"]  # type: ignore[arg-type]


def test_who_asks_for_raised_studies_hears_of_no_other() -> None:
    assert hears()
    assert not hears(ROUTINE)
    assert hears(ROUTINE, when="analysed")


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ({"urgency": Urgency.URGENT}, {"urgency": Urgency.STAT}),
        ({"called_ae": frozenset({"ER", "ICU"})}, {"called_ae": frozenset({"ICU"})}),
        ({"modality": frozenset({"DX", "CR"})}, {"modality": frozenset({"CR"})}),
        ({"findings": frozenset({"Effusion", "Mass"})}, {"findings": frozenset({"Mass"})}),
        ({"hours": (time(8), time(18))}, {"hours": (time(18), time(8))}),
        ({"hours": (time(12), time(13))}, {"hours": (time(11), time(12))}),
    ],
)
def test_each_wish_lets_some_through_and_others_not(asked: dict[str, object], other: dict[str, object]) -> None:
    assert hears(**asked)
    assert not hears(**other)
    assert not hears(**asked | other)


def test_whoever_was_told_hears_how_it_goes_on() -> None:
    assert hears(ROUTINE, ("ris",), urgency=Urgency.STAT)


def test_hours_over_midnight() -> None:
    night = {"hours": (time(22), time(6, 30))}
    for hour, minute, there in (
        (22, 0, True),
        (23, 59, True),
        (0, 0, True),
        (6, 29, True),
        (6, 30, False),
        (12, 0, False),
    ):
        at = datetime(2026, 3, 1, hour, minute).astimezone()
        assert hears(replace(NEWS, decided_at=at.astimezone(UTC)), **night) is there


def test_a_withdrawal_goes_to_whoever_was_told_and_to_nobody_else() -> None:
    taken_back = replace(ROUTINE, withdrawn=Withdrawal.PERSON)
    assert hears(taken_back, ("ris",), urgency=Urgency.STAT)
    assert not hears(taken_back, when="analysed")


def test_that_a_study_was_reported_is_told_to_those_who_keep_a_task() -> None:
    reported = replace(ROUTINE, withdrawn=Withdrawal.REPORTED)
    assert hears(reported, ("ris",), keeps_tasks=True)
    assert not hears(reported, ("ris",))
    assert not hears(reported, keeps_tasks=True)
