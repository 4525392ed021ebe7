from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest

from tests.waiting import eventually
from worker.upkeep.calendar import Calendar, Duty


def test_a_duty_runs_at_start_and_again_and_a_failing_one_stops_nobody() -> None:
    again = threading.Event()
    runs: list[str] = []

    def works() -> int:
        runs.append("works")
        if len(runs) > 2:
            again.set()
        return 1

    def fails() -> int:
        raise ValueError

    calendar = Calendar(
        [Duty("fails", timedelta(milliseconds=20), fails), Duty("works", timedelta(milliseconds=20), works)]
    )
    calendar.start()
    assert again.wait(10)
    calendar.stop()


def test_a_duty_that_is_still_busy_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """By APScheduler, which starts none of them twice at once."""
    enough = threading.Event()
    calendar = Calendar([Duty("retention", timedelta(milliseconds=20), lambda: int(enough.wait(10)))])
    with caplog.at_level(logging.WARNING, "apscheduler"):
        calendar.start()
        eventually(lambda: caplog.messages, 10)
        enough.set()
        calendar.stop()
    assert "retention" in caplog.messages[0]
    assert "_guarded" not in caplog.text
