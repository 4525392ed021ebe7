"""`hilum try-policy` on a week of studies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.decision import Policy
from schemas.findings import LABELS
from schemas.identity import StudyContext
from schemas.outcome import Audience, Read
from schemas.prediction import Prediction
from tests.contract.record.given import MODEL, Record
from worker.cli.main import app
from worker.decide.policy import decide, thresholds
from worker.decide.routing import recipients
from worker.decide.study import settle
from worker.record.database import Database

NOW = datetime.now(UTC)
POINTS = {**dict.fromkeys(map(str, LABELS), 0.5), "binary": 0.5}
CONFIG = """
[database]
url = "{url}"
[[destinations]]
name = "pacs"
kind = "dicom-sr"
ae_title = "PACS"
port = 11113
"""
STRICTER = """
[policy.findings.Pneumothorax]
urgency = "URGENT"
threshold = 0.75
[policy.findings.Mass]
urgency = "STAT"
threshold = 0.6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Five studies of this week with pneumothorax between 0.5 and 0.9, one with a mass, and an old one."""
    url = f"sqlite:///{tmp_path}/hilum.db"
    database = Database(url)
    database.migrate()
    (tmp_path / "hilum.toml").write_text(CONFIG.format(url=url))
    record = Record(database, url)
    for study, p in enumerate((0.5, 0.6, 0.7, 0.8, 0.9)):
        film(record, study, NOW - timedelta(days=study + 1), PNEUMOTHORAX=p)
    film(record, 7, NOW - timedelta(hours=1), MASS=0.8)
    film(record, 8, NOW - timedelta(days=100), PNEUMOTHORAX=0.9)
    yield tmp_path
    database.close()


def film(record: Record, study: int, at: datetime, **findings: float) -> None:
    seen = Prediction(
        model_id=MODEL.id, binary=0.9, findings={label: findings.get(label.name, 0.1) for label in LABELS}
    )
    decision = decide(seen, Policy(), thresholds(Policy(), POINTS))
    record.receive(1, study, context=StudyContext(modality="DX"), at=at)
    route = partial(recipients, [Audience(name="pacs")])
    outcome = Read(prediction=seen, decision=decision)
    record.jobs.conclude(record.claim(at=at), "reader", outcome, settle, route, MODEL, at)


def attempt(folder: Path, words: str, *more: str) -> dict[str, dict[str, Any]]:
    (folder / "new.toml").write_text(words)
    arguments = ["try-policy", "--policy", str(folder / "new.toml"), "--config", str(folder / "hilum.toml"), "--json"]
    run = CliRunner().invoke(app, [*arguments, *more])
    assert run.exit_code == 0, run.output
    return {row["destination"]: row for row in map(json.loads, run.stdout.splitlines())}


def test_the_policy_in_force_changes_nothing(folder: Path) -> None:
    """The films are another model's than the one in service: the operating points of then are taken."""
    pacs = attempt(folder, "")["pacs"]
    assert (pacs["was"], pacs["would"], pacs["gained"], pacs["lost"]) == (5, 5, 0, 0)
    assert (pacs["urgencies"], pacs["findings"]) == ({"STAT": 5, "URGENT": 0, "ROUTINE": 0}, {"Pneumothorax": 5})


def test_another_policy_gains_and_loses(folder: Path) -> None:
    pacs = attempt(folder, STRICTER)["pacs"]
    assert (pacs["was"], pacs["would"], pacs["gained"], pacs["lost"]) == (5, 3, 1, 3)
    assert (pacs["other_urgency"], pacs["per_day"]) == (2, 0.4)
    assert pacs["findings"] == {"Pneumothorax": 2, "Mass": 1}


def test_other_destinations_are_tried_with_the_policy_in_force(folder: Path) -> None:
    rows = attempt(folder, '[[destinations]]\nname = "all"\nkind = "paper"\nwhen = "analysed"\n')
    assert (rows["all"]["was"], rows["all"]["would"]) == (0, 6)
    assert (rows["pacs"]["was"], rows["pacs"]["lost"]) == (5, 5)


def test_what_the_file_does_not_hold_is_the_policy_in_force(folder: Path) -> None:
    enact = ["policy", "enact", str(folder / "strict.toml"), "--note", "tried", "--yes"]
    (folder / "strict.toml").write_text(STRICTER)
    run = CliRunner().invoke(app, [*enact, "--config", str(folder / "hilum.toml")])
    assert run.exit_code == 0, run.output
    pacs = attempt(folder, "")["pacs"]
    assert (pacs["would"], pacs["gained"], pacs["lost"]) == (3, 1, 3)


def test_another_time(folder: Path) -> None:
    assert attempt(folder, "", "--days", "200")["pacs"]["was"] == 6
    since = (NOW - timedelta(days=2, hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert attempt(folder, "", "--since", since)["pacs"]["was"] == 2


def test_nothing_is_sent_and_nothing_is_changed(folder: Path) -> None:
    before = (folder / "hilum.db").read_bytes()
    attempt(folder, STRICTER)
    assert (folder / "hilum.db").read_bytes() == before


def test_a_person_reads_that_it_is_no_all_clear(folder: Path) -> None:
    (folder / "new.toml").write_text(STRICTER)
    arguments = ["try-policy", "--policy", str(folder / "new.toml"), "--config", str(folder / "hilum.toml")]
    words = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert "6 studies" in words
    assert "no all-clear" in words


def test_a_fault_in_the_file_is_told_with_its_key(folder: Path) -> None:
    (folder / "new.toml").write_text('[policy.findings.Mass]\nurgency = "SOON"\n')
    arguments = ["try-policy", "--policy", str(folder / "new.toml"), "--config", str(folder / "hilum.toml")]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2
    assert "policy.findings.Mass.urgency" in run.output
