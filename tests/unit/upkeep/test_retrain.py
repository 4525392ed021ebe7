"""The duty that asks for training runs, on a real record and by real cron expressions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from worker.record.database import Database
from worker.record.retrainings import Retrainings
from worker.record.training_runs import TrainingRuns
from worker.upkeep import retrain
from worker.upkeep.calendar import next_time

NOW = datetime(2026, 3, 14, 22, 10, tzinfo=UTC)  # a Saturday


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/hilum.db")
    database.migrate()
    yield database
    database.close()


def test_a_month_of_looks_asks_for_each_sunday(database: Database) -> None:
    retrainings, runs = Retrainings(database), TrainingRuns(database)
    retrainings.add(
        name="weekly",
        cron="0 2 * * sun",
        preset="quick",
        data="/films",
        made_by="anna",
        now=NOW,
        next_at=next_time("0 2 * * sun", NOW),
    )
    counts = []
    for hour in range(24 * 28):
        asked = retrain.run_once(retrainings, NOW + timedelta(hours=hour), next_time)
        counts.append(asked)
        for run in runs.list(1):
            if asked:
                runs.ask_to_cancel(run.id, NOW)
    assert sum(counts) == 4
    assert [run.name for run in runs.list()] == [
        "weekly-20260405",
        "weekly-20260329",
        "weekly-20260322",
        "weekly-20260315",
    ]


@pytest.mark.parametrize(
    ("cron", "comes"),
    [
        ("0 2 * * sun", datetime(2026, 3, 15, 2, tzinfo=UTC)),
        ("0 2 1 * *", datetime(2026, 4, 1, 2, tzinfo=UTC)),
        ("0 2 1-7 * sun", datetime(2026, 4, 5, 2, tzinfo=UTC)),
        ("30 1 1 1,4,7,10 *", datetime(2026, 4, 1, 1, 30, tzinfo=UTC)),
        ("10 22 * * *", datetime(2026, 3, 15, 22, 10, tzinfo=UTC)),  # after the moment, not at it
        ("0 2 * * */2", datetime(2026, 3, 15, 2, tzinfo=UTC)),
        ("0 2 29 2 *", datetime(2028, 2, 29, 2, tzinfo=UTC)),
    ],
)
def test_when_a_cron_expression_comes_next(cron: str, comes: datetime) -> None:
    assert next_time(cron, NOW) == comes


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "not minute, hour"),
        ("monthly", "not minute, hour"),
        ("0 25 * * *", "higher than the maximum"),
        ("0 2 * * 0", "name the weekdays"),
        ("0 2 * * 1-5", "name the weekdays"),
        ("0 2 * * mon,3", "name the weekdays"),
        ("0 2 * * sun\0", "not minute, hour"),
        ("0 2 * * sun;", "not minute, hour"),
        ("0 2 30 2 *", "no such day"),
        ("0 2 * * *" + " *" * 400, "not minute, hour"),
    ],
)
def test_what_is_no_cron_expression_is_refused(cron: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        next_time(cron, NOW)
    assert len(str(refused.value)) < 400
