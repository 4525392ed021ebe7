"""The drift watch: tells each alarm once, pauses flags only where it may, and never for what flags do not hang on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from schemas.errors import TransientFailure
from schemas.scanner import Scanner
from schemas.watching import DriftAlarm, DriftRules, Measure
from worker.record.drift import Drift
from worker.record.pauses import Pauses
from worker.upkeep.drift import WHO, run_once

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROOM = Scanner(manufacturer="Acme", model="DR 9000", view="PA", bits_stored=12)


def alarm(number: int, measure: Measure) -> DriftAlarm:
    return DriftAlarm(
        id=number,
        scanner=ROOM,
        model_id="m",
        measure=measure,
        value=0.51,
        limit=0.25,
        began_at=NOW,
        ended_at=None,
    )


class Ward:
    """A record of scanners that finds what it is told to, a mailbox, and who paused flags."""

    def __init__(self) -> None:
        self.finds: list[DriftAlarm] = []
        self.standing: list[DriftAlarm] = []
        self.mails: list[tuple[str, str, str]] = []
        self.paused: list[tuple[str, str]] = []
        self.away = False

    def watch(self, rules: DriftRules, now: datetime) -> list[DriftAlarm]:
        begun, self.finds = self.finds, []
        self.standing += begun
        return begun

    def untold(self) -> list[DriftAlarm]:
        return list(self.standing)

    def told(self, alarm: DriftAlarm, now: datetime) -> None:
        self.standing.remove(alarm)

    def pause(self, who: str, why: str, now: datetime) -> bool:
        self.paused.append((who, why))
        return True

    def tell(self, subject: str, text: str, key: str) -> None:
        if self.away:
            raise TransientFailure("mail:25: nothing listens there")
        self.mails.append((subject, text, key))

    def round(self, *, pause: bool = False, mail: bool = True) -> int:
        tell = self.tell if mail else None
        return run_once(cast(Drift, self), cast(Pauses, self), tell, NOW, rules=DriftRules(), pause=pause)


@pytest.fixture
def ward() -> Ward:
    return Ward()


def test_each_alarm_is_told_once_with_a_mend(ward: Ward) -> None:
    ward.finds = [alarm(n, measure) for n, measure in enumerate(Measure)]
    assert [ward.round(), ward.round()] == [4, 0]
    assert len(ward.mails) == 4
    assert len({key for _, _, key in ward.mails}) == 4
    subject, text, _ = ward.mails[0]
    assert subject == "hilum: films have changed: Acme DR 9000, PA, 12 bit"
    assert "stability index 0.51, limit 0.25" in text
    assert all(len(text.strip().split("\n\n")) == 2 for _, text, _ in ward.mails)


def test_its_end_is_told_too(ward: Ward) -> None:
    ward.standing = [replace(alarm(1, Measure.SCORES), ended_at=NOW + timedelta(hours=1))]
    ward.round()
    assert "are as they were again" in ward.mails[0][0]


def test_a_mail_server_that_is_away_is_tried_again(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    ward.finds, ward.away = [alarm(1, Measure.SCORES)], True
    ward.round()
    assert "alarm-not-sent" in caplog.text
    ward.away = False
    ward.round()
    assert len(ward.mails) == 1


def test_without_mail_the_log_says_so(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    ward.finds = [alarm(1, Measure.SCORES)]
    assert ward.round(mail=False) == 1
    assert "drift measure=scores value=0.510" in caplog.text


def test_flags_are_paused_only_where_that_is_wanted_and_only_for_scores(ward: Ward) -> None:
    ward.finds = [alarm(1, Measure.SCORES)]
    ward.round()
    assert ward.paused == []
    ward.finds = [alarm(n, measure) for n, measure in enumerate(Measure) if measure is not Measure.SCORES]
    ward.round(pause=True)
    assert ward.paused == []
    ward.finds = [alarm(1, Measure.SCORES)]
    ward.round(pause=True)
    ((who, why),) = ward.paused
    assert (who, "Acme DR 9000, PA, 12 bit: the scores are not spread as they were" in why) == (WHO, True)
