"""One alarm when a destination begins to be late, one when it is over, whatever is started anew in between."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from schemas.errors import TransientFailure
from schemas.watching import Pause
from worker.record.outbox import Outbox, Overdue
from worker.upkeep.alarm import Told, run_once

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AFTER = timedelta(minutes=5)


class Ward:
    """An outbox with flags that wait since some moment, a mailbox, the duty; `restart` forgets what is in memory."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "var" / "alarms.json"
        self.waiting: dict[str, tuple[datetime, int, str]] = {}
        self.refused: dict[str, tuple[datetime, int, str]] = {}
        self.mails: list[tuple[str, str, str]] = []
        self.away = False
        self.pause: Pause | None = None
        self.restart()

    def restart(self) -> None:
        self.told = Told(self.file)

    def overdue(self, before: datetime) -> Sequence[Overdue]:
        return [
            Overdue(destination=name, refused=late is self.refused, flags=flags, since=since, last_error=error)
            for late in (self.waiting, self.refused)
            for name, (since, flags, error) in late.items()
            if since <= before
        ]

    def tell(self, subject: str, text: str, key: str) -> None:
        if self.away:
            raise TransientFailure("mail:25: nothing listens there: is it running?")
        self.mails.append((subject, text, key))

    def round(self, minutes: float) -> int:
        return run_once(
            cast(Outbox, self), self.told, self.tell, NOW + timedelta(minutes=minutes), after=AFTER, pause=self.pause
        )


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_a_flag_that_is_late_is_told_once_and_its_end_once(ward: Ward) -> None:
    ward.waiting["ris"] = (NOW, 3, "ris:2575: nothing listens there: is it running?")
    assert [ward.round(minutes) for minutes in (1, 4.9, 5, 5.5, 600)] == [0, 0, 1, 0, 0]
    (subject, text, _), *none = ward.mails
    assert not none
    assert "3 flags wait for destination ris since" in subject
    assert "Last error: ris:2575: nothing listens there" in text
    del ward.waiting["ris"]
    assert [ward.round(minutes) for minutes in (601, 602)] == [1, 0]
    assert "ris has its flags again" in ward.mails[1][0]
    assert len({key for _, _, key in ward.mails}) == 2


def test_each_destination_has_alarms_of_its_own(ward: Ward) -> None:
    ward.waiting |= {"ris": (NOW, 1, ""), "pacs": (NOW, 2, "")}
    assert ward.round(6) == 2
    del ward.waiting["pacs"]
    assert ward.round(7) == 1
    assert "pacs has" in ward.mails[-1][0]
    assert "1 flag waits" in ward.mails[0][0]


def test_that_a_flag_was_refused_does_not_hide_that_the_destination_is_away(ward: Ward) -> None:
    ward.refused["ris"] = (NOW, 1, "SOP class refused: mend it")
    assert [ward.round(6), ward.round(7)] == [1, 0]
    ward.waiting["ris"] = (NOW + timedelta(minutes=10), 2, "nothing listens there")
    assert ward.round(16) == 1
    assert "1 flag refused by destination ris" in ward.mails[0][0]
    assert "`hilum replay`" in ward.mails[0][1]
    assert "2 flags wait for destination ris" in ward.mails[1][0]
    ward.restart()
    del ward.refused["ris"]
    assert ward.round(17) == 1
    assert "nothing that destination ris refused is left" in ward.mails[2][0]
    del ward.waiting["ris"]
    assert ward.round(18) == 1
    assert "destination ris has its flags again" in ward.mails[3][0]


def test_while_flags_are_paused_the_alarm_says_so(ward: Ward) -> None:
    ward.waiting["ris"] = (NOW, 3, "")
    ward.pause = Pause(at=NOW, who="anna", why="a new detector")
    assert ward.round(6) == 1
    assert "by anna: a new detector. They go when somebody resumes them." in ward.mails[0][1]
    assert "goes on trying" not in ward.mails[0][1]


def test_a_restart_tells_nothing_twice(ward: Ward) -> None:
    ward.waiting["ris"] = (NOW, 1, "")
    ward.round(6)
    for _ in range(10):
        ward.restart()
        assert ward.round(7) == 0
    del ward.waiting["ris"]
    ward.restart()
    assert ward.round(8) == 1
    ward.restart()
    assert ward.round(9) == 0


def test_a_slow_destination_does_not_alarm_by_the_minute(ward: Ward) -> None:
    """What waits longest changes with every flag that goes through, and hovers about the limit."""
    for minute in range(60):
        age = 5.5 if minute % 2 else 4.5
        ward.waiting["ris"] = (NOW + timedelta(minutes=minute - age), 1, "")
        ward.round(minute)
    assert len(ward.mails) == 1
    ward.waiting["ris"] = (NOW + timedelta(minutes=60), 1, "")
    assert ward.round(61) == 1
    assert "again" in ward.mails[-1][0]


def test_a_mail_server_that_is_away_is_tried_again(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    ward.waiting |= {"ris": (NOW, 1, ""), "pacs": (NOW, 1, "")}
    ward.away = True
    assert ward.round(6) == 0
    assert "nothing listens there" in caplog.text
    ward.away = False
    assert ward.round(7) == 2
    del ward.waiting["ris"]
    ward.away = True
    assert ward.round(8) == 0
    ward.away = False
    assert ward.round(9) == 1


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff", b'{"ris": 7}'])
def test_a_file_that_a_crash_cut_short_costs_one_mail(ward: Ward, broken: bytes) -> None:
    ward.waiting["ris"] = (NOW, 1, "")
    ward.round(6)
    ward.file.write_bytes(broken)
    ward.restart()
    assert ward.round(7) in {0, 1}
    ward.restart()
    assert ward.round(8) == 0
