"""What whoever reads the list must know now: each notice says what is so, since when, and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.standing import Line, Standing
from tests.unit.worklist.ward import NOW, Ward
from worker.record.destinations import Destinations
from worker.record.pauses import Pauses
from worker.settings import Settings
from worker.watching_room import drift_rules, notices, watch_desk

PLENTY = 1 << 40
SETTINGS = Settings(
    destinations=[{"kind": "paper", "name": "pacs"}],
    watch={"behind_seconds": 60, "drift_days": 3, "drift_films": 100},
)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.close()


def said(ward: Ward, free: int = PLENTY) -> list[str]:
    return notices(SETTINGS, ward.database, free, NOW)


def test_where_all_is_well_there_is_nothing_to_say(ward: Ward) -> None:
    ward.receive(1, ago=timedelta(seconds=59))
    Destinations(ward.database).note(Standing(destination="pacs", since=NOW))
    Destinations(ward.database).note(Standing(destination="gone", line=Line.OPEN, since=NOW))  # not configured any more
    assert said(ward) == []


def test_hilum_is_behind(ward: Ward) -> None:
    ward.receive(1, ago=timedelta(minutes=12))
    ward.receive(2, ago=timedelta(minutes=2))
    (notice,) = said(ward)
    assert notice.startswith("hilum is behind: 2 films wait to be read, the first since 2026-03-14 21:58 UTC.")
    assert "role read" in notice


def test_flags_are_paused(ward: Ward) -> None:
    Pauses(ward.database).pause("anna", "a new detector", NOW)
    (notice,) = said(ward)
    assert notice.startswith("Flags are paused since 2026-03-14 22:10 UTC by anna: a new detector.")
    Pauses(ward.database).resume("anna", "", NOW)
    assert said(ward) == []


@pytest.mark.parametrize("line", [Line.OPEN, Line.HALF_OPEN])
def test_a_destination_is_down(ward: Ward, line: Line) -> None:
    down = Standing(destination="pacs", line=line, failures=4, since=NOW, last_error="nothing listens there")
    Destinations(ward.database).note(down)
    (notice,) = said(ward)
    assert "Destination pacs is down since 2026-03-14 22:10 UTC" in notice
    assert "nothing listens there" in notice


def test_the_disk_is_nearly_full_and_then_full(ward: Ward) -> None:
    watermark = SETTINGS.spool.watermark_mib << 20
    assert said(ward, 2 * watermark) == []
    assert said(ward, 2 * watermark - 1)[0].startswith("The disk is nearly full: 2.0 GiB")
    assert said(ward, watermark - 1)[0].startswith("Films are refused: 1.0 GiB")


def test_what_the_page_is_made_of_is_as_configured(ward: Ward) -> None:
    watch = watch_desk(SETTINGS, ward.database)
    assert watch.configured == ["pacs"]
    assert watch.keep == timedelta(days=7)
    assert drift_rules(SETTINGS) == watch.rules
    assert (watch.rules.recent, watch.rules.films) == (timedelta(days=3), 100)
