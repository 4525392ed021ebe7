"""The calendar of training runs: each is asked for once, however many look, and never on top of itself."""

from __future__ import annotations

import multiprocessing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from schemas.training_run import Retraining, RunState
from tests.contract.record.given import NOW, Record, after
from worker.record.database import Database
from worker.record.retrainings import BY, Retrainings
from worker.record.training_runs import TrainingRuns

DAY = timedelta(days=1)


@pytest.fixture
def retrainings(record: Record) -> Retrainings:
    return Retrainings(record.database)


@pytest.fixture
def runs(record: Record) -> TrainingRuns:
    return TrainingRuns(record.database)


def daily(cron: str, moment: datetime) -> datetime:
    """In the place of a cron expression's arithmetic, which is `worker.upkeep.calendar`'s."""
    assert cron == "0 2 * * *"
    due = moment.replace(hour=2, minute=0, second=0, microsecond=0)
    return due if due > moment else due + DAY


def add(retrainings: Retrainings, name: str = "daily", **over: str) -> Retraining:
    words = {"preset": "quick", "description": "[model]\nsize = 64", "data": "/films"} | over
    return retrainings.add(
        name=name, cron="0 2 * * *", made_by="anna", now=NOW, next_at=daily("0 2 * * *", NOW), **words
    )


def test_an_entry_is_kept_and_taken_off(retrainings: Retrainings) -> None:
    second = add(retrainings, "second")
    first = retrainings.add(
        name="first", cron="0 1 * * *", preset="nih", data="/films", made_by="anna", now=NOW, next_at=NOW
    )
    assert retrainings.list() == [first, second]
    assert (second.description, second.last_run, second.made_by) == ("[model]\nsize = 64", None, "anna")
    assert retrainings.remove(first.id) == first
    assert retrainings.remove(first.id) is None
    assert retrainings.list() == [second]


def test_a_run_is_asked_for_when_it_is_due_and_once(retrainings: Retrainings, runs: TrainingRuns) -> None:
    entry = add(retrainings)
    assert list(retrainings.ask(entry.next_at - timedelta(seconds=1), daily)) == []
    (number,) = retrainings.ask(entry.next_at, daily)
    assert list(retrainings.ask(entry.next_at + timedelta(seconds=30), daily)) == []
    run = runs.show(number)
    assert (run.state, run.preset, run.description, run.data, run.requested_by) == (
        RunState.REQUESTED,
        "quick",
        "[model]\nsize = 64",
        "/films",
        BY,
    )
    assert run.name == f"daily-{entry.next_at:%Y%m%d}"
    (now_known,) = retrainings.list()
    assert (now_known.last_run, now_known.next_at) == (number, entry.next_at + DAY)


def test_what_was_missed_is_asked_for_once(retrainings: Retrainings, runs: TrainingRuns) -> None:
    entry = add(retrainings)
    late = entry.next_at + 10 * DAY + timedelta(hours=1)
    assert len(retrainings.ask(late, daily)) == 1
    assert list(retrainings.ask(late, daily)) == []
    assert retrainings.list()[0].next_at == entry.next_at + 11 * DAY


def test_none_is_asked_for_while_the_one_before_has_not_finished(retrainings: Retrainings, runs: TrainingRuns) -> None:
    entry = add(retrainings)
    (first,) = retrainings.ask(entry.next_at, daily)
    assert list(retrainings.ask(entry.next_at + DAY, daily)) == []
    assert retrainings.list()[0].next_at == entry.next_at + 2 * DAY  # its turn has passed
    runs.ask_to_cancel(first, NOW)
    (second,) = retrainings.ask(entry.next_at + 2 * DAY, daily)
    assert second != first


def test_two_entries_are_asked_for_apart(retrainings: Retrainings, runs: TrainingRuns) -> None:
    one, _ = add(retrainings, "one"), add(retrainings, "two")
    assert [runs.show(n).name for n in retrainings.ask(one.next_at, daily)] == ["one-20260302", "two-20260302"]


def test_what_no_run_can_be_asked_for_with_is_refused(retrainings: Retrainings) -> None:
    for wrong, words in [
        ({"name": "x" * 51}, "no more than 50"),
        ({"name": "../up"}, "letters, digits"),
        ({"data": " "}, "in which folder"),
        ({"preset": "", "description": ""}, "give one of them"),
        ({"description": "seed = "}, "not TOML"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            add(retrainings, **wrong)
    assert retrainings.list() == []


def look(url: str, name: str, folder: Path, due: datetime) -> None:
    database = Database(url)
    retrainings = Retrainings(database)
    asked = [str(run) for _ in range(20) for run in retrainings.ask(due, daily)]
    (folder / name).write_text("\n".join(asked))
    database.close()


def test_several_upkeep_processes_ask_once(
    url: str, retrainings: Retrainings, runs: TrainingRuns, tmp_path: Path
) -> None:
    entries = [add(retrainings, f"entry{n}") for n in range(20)]
    context = multiprocessing.get_context("spawn")
    lookers = [
        context.Process(target=look, args=(url, name, tmp_path, entries[0].next_at)) for name in ("u1", "u2", "u3")
    ]
    for process in lookers:
        process.start()
    for process in lookers:
        process.join(120)
    assert [process.exitcode for process in lookers] == [0, 0, 0]
    assert len(runs.list(1000)) == len(entries)
    assert sorted(run.name.partition("-")[0] for run in runs.list(1000)) == sorted(e.name for e in entries)


def test_a_run_outlives_its_entry(retrainings: Retrainings, runs: TrainingRuns) -> None:
    entry = add(retrainings)
    (number,) = retrainings.ask(after(86400), daily)
    retrainings.remove(entry.id)
    assert runs.show(number).state is RunState.REQUESTED
