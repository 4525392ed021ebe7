from __future__ import annotations

import threading
from datetime import timedelta

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
