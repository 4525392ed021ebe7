"""`hilum policy`: what there is, what one would have raised, and putting one into force."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.contract.record.given import Record
from tests.unit.corridor.past import said, take
from worker.cli.main import app
from worker.record.audit import Audit
from worker.record.database import Database

STRICT = """
[policy.findings.Pneumothorax]
urgency = "STAT"
threshold = 0.5
[policy.findings.Mass]
urgency = "URGENT"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Three studies of yesterday: two that the default policy raises, one that the strict one does."""
    url = f"sqlite:///{tmp_path}/hilum.db"
    database = Database(url)
    database.migrate()
    record = Record(database, url)
    at = datetime.now(UTC) - timedelta(days=1)
    for study, findings in enumerate(({"PNEUMOTHORAX": 0.9}, {"PNEUMOTHORAX": 0.2}, {"MASS": 0.4}), 1):
        take(record, study, said(**findings), at=at + timedelta(minutes=study))
    (tmp_path / "hilum.toml").write_text(f'[database]\nurl = "{url}"\n')
    (tmp_path / "strict.toml").write_text(STRICT)
    yield tmp_path
    database.close()


def run(folder: Path, *words: str, fed: str = "") -> Result:
    named = [str(folder / word) if word.endswith(".toml") else word for word in words]
    return CliRunner().invoke(app, ["policy", *named, "--config", str(folder / "hilum.toml")], input=fed)


def told(folder: Path, *words: str) -> Any:
    result = run(folder, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_dry_run_tells_what_would_be_and_changes_nothing(folder: Path) -> None:
    seen = told(folder, "try", "strict.toml")
    assert (seen["studies"], seen["before"], seen["after"]) == (3, 2, 2)
    assert (seen["gained"], seen["lost"], seen["in_force"]) == (1, 1, 0)
    assert seen["flags"] == {"1.2.3.1": "STAT", "1.2.3.3": "URGENT"}
    words = run(folder, "try", "strict.toml").stdout
    assert "effusion: silent (was: URGENT at the card's threshold)" in words
    assert "1 gain a flag, 1 lose it" in words
    assert "no all-clear" in words
    assert run(folder, "list").stdout.strip().endswith("policy 0 is in force: the configuration's ([policy])")


def test_a_file_becomes_a_policy_and_comes_into_force(folder: Path) -> None:
    made = told(folder, "enact", "strict.toml", "--note", "as agreed", "--yes")
    assert (made["number"], made["in_force"], made["enacted_because"], made["enacted_by"]) == (
        1,
        True,
        "as agreed",
        "command line",
    )
    assert told(folder, "show") == made
    assert told(folder, "show", "--at", "2020-01-01T00:00:00")["number"] == 0
    assert "mass" in run(folder, "show", "1").stdout
    assert "policy 1 is in force" in run(folder, "list").stdout
    database = Database(f"sqlite:///{folder}/hilum.db")
    (_, deed) = Audit(database).deeds(1)[0]
    database.close()
    assert (deed.who, deed.action, deed.detail) == ("command line", "enacted a policy", {"policy": 1, "before": 0})


def test_the_dry_run_is_shown_before_it_is_asked(folder: Path) -> None:
    refused = run(folder, "enact", "strict.toml", "--note", "as agreed", fed="n\n")
    assert refused.exit_code == 1
    assert "1 gain a flag, 1 lose it" in refused.stdout
    assert told(folder, "show")["number"] == 0
    assert run(folder, "enact", "strict.toml", "--note", "as agreed", fed="y\n").exit_code == 0
    assert told(folder, "show")["number"] == 1


def test_back_to_the_configurations(folder: Path) -> None:
    """Number 0 is enacted as a policy of its own that says the same."""
    told(folder, "enact", "strict.toml", "--note", "as agreed", "--yes")
    back = told(folder, "enact", "0", "--note", "too silent", "--yes")
    assert (back["number"], back["followed"]) == (2, 1)
    assert back["policy"] == told(folder, "show", "0")["policy"]
    once = run(folder, "enact", "1", "--note", "again", "--yes")
    assert once.exit_code == 1
    assert "propose the same again" in " ".join(once.output.split())


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("show", "7"), 1, "policy 7 is not known here"),
        (("try", "missing.toml"), 2, "missing.toml"),
        (("enact", "strict.toml", "--note", " ", "--yes"), 2, "say why"),
    ],
)
def test_what_cannot_be_done_is_said_so(folder: Path, words: tuple[str, ...], code: int, complaint: str) -> None:
    result = run(folder, *words)
    assert result.exit_code == code
    assert complaint in " ".join(result.output.split())
    assert "never" not in run(folder, "list").stdout  # nothing was proposed
