"""`hilum second-look`: the list, for a person and for programs, and what was looked at."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import update
from typer.testing import CliRunner

from schemas.context import MessageId, SignedReport, Verdict
from schemas.outcome import Audience
from schemas.tables import Study
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from worker.cli.main import app
from worker.decide.routing import recipients
from worker.record.context import Context
from worker.record.database import Database

runner = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Study 1 was raised, and its report names nothing."""
    ward = Ward(tmp_path)
    ward.study(1, read(PNEUMOTHORAX))
    report = SignedReport(study_uid="2.25.1", verdict=Verdict.NEGATIVE, rule="negative.0", said_at=ward.now)
    message = MessageId(sender="RIS", control_id="1", digest="sha")
    route = partial(recipients, [Audience(name="pacs", when="analysed")])
    Context(ward.database).take(message, [report], route, ward.now)
    ward.close()
    path = tmp_path / "hilum.toml"
    path.write_text(f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n')
    return str(path)


def look(config: str, *arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, ["second-look", "--config", config, *arguments], terminal_width=200)
    assert result.exit_code == code, result.output
    return result.output


def test_what_the_model_said_and_what_the_report_said(config: str) -> None:
    said = look(config)
    for words in ("A0000001", "P00001", "negative (negative.0)", "pneumothorax 0.91, threshold 0.62", "2.25.1"):
        assert words in said
    assert "not an all-clear" in said
    assert "normal" not in said


def test_a_uid_is_whole_on_the_narrowest_terminal(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = "1.2.840.113619." + "9" * 49
    database = Database(f"sqlite:///{Path(config).parent}/hilum.db")
    database.write(lambda connection: connection.execute(update(Study).values(study_uid=uid)))
    database.close()
    monkeypatch.setattr("worker.cli.options.console", Console(width=40, force_terminal=True, color_system=None))
    assert f"study   {uid}" in look(config).splitlines()[3]


def test_for_programs(config: str) -> None:
    (line,) = look(config, "--json").splitlines()
    row = json.loads(line)
    assert (row["study_uid"], row["report"], row["report_rule"], row["model"]) == (
        "2.25.1",
        "negative",
        "negative.0",
        "positive",
    )


def test_what_was_looked_at_is_off_the_list(config: str) -> None:
    assert "marked as seen" in look(config, "--done", "2.25.1")
    assert look(config, "--json") == ""
    assert "no study is on the list" in look(config)
    assert "is not on the list" in look(config, "--done", "2.25.1", code=1)
    assert "is not on the list" in look(config, "--done", "[red]9.9", code=1)
