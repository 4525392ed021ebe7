"""`hilum runs calendar`: an entry put in, shown, taken off; and what is said of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli import commands
from tests.unit.cli.commands import configured
from tests.unit.worklist.ward import Ward
from worker.record.audit import Audit


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with configured(tmp_path) as made:
        yield made


def call(ward: Ward, *words: str, code: int = 0) -> str:
    return commands.call(ward, "runs", "calendar", *words, code=code)


ADD = ("add", "--data", "/films", "--preset", "quick", "--cron")


def test_an_entry_comes_and_goes(ward: Ward) -> None:
    assert "nothing is asked for regularly" in call(ward, "list")
    assert "entry 1: next at" in call(ward, *ADD, "0 2 * * sun")
    assert json.loads(call(ward, *ADD, "0 3 1 * *", "--name", "monthly", "--json"))["name"] == "monthly"
    assert "0 2 * * sun" in call(ward, "list")
    listed = [json.loads(line) for line in call(ward, "list", "--json").splitlines()]
    assert {(entry["name"], entry["data"], entry["preset"]) for entry in listed} == {
        ("quick", "/films", "quick"),
        ("monthly", "/films", "quick"),
    }
    assert "quick is off the calendar" in call(ward, "remove", "1")
    assert "hilum runs calendar list" in call(ward, "remove", "1", code=1)
    assert [deed.action for _, deed in Audit(ward.database).deeds(9)] == [
        "took a training run off the calendar",
        "put a training run into the calendar",
        "put a training run into the calendar",
    ]


@pytest.mark.parametrize(("cron", "told"), [("monthly", "minute, hour"), ("0 2 * * 0", "name the weekdays")])
def test_what_is_no_rhythm_is_refused(ward: Ward, cron: str, told: str) -> None:
    assert told in call(ward, *ADD, cron, code=2)
    assert call(ward, "list", "--json") == ""
