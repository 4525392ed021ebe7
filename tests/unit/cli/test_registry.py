"""`hilum models registry`, `promote`, `rollback`, `history`, `live-at`, `compare`: by command, by the page's rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.card import model_id, read_card
from schemas.decision import Urgency
from schemas.registry import Check, ModelReader, ModelState
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, read
from worker.assemble import now
from worker.cli.main import app
from worker.reading_room import PACKAGED
from worker.record.registry import Registry
from worker.record.shadow import Shadows

LIVE = read_card(PACKAGED / "starter")
NEW = replace(
    LIVE,
    version="0.2.1",
    files={**LIVE.files, "more": "x"},
    thresholds={name: point + 1e-6 for name, point in LIVE.thresholds.items()},
)
A, B = model_id(LIVE), model_id(NEW)
PROOF = Check(name="openvino (CPU)", passed=True, words="golden probabilities within 0.0001")


@dataclass
class Site:
    """A configured site whose starter is live and whose next version is a candidate."""

    ward: Ward
    registry: Registry

    def call(self, *words: str, code: int = 0) -> str:
        run = CliRunner().invoke(app, ["models", *words, "--config", str(self.ward.folder / "hilum.toml")])
        assert run.exit_code == code, run.output
        return run.output

    def json(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.call(*words, "--json").splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    ward = Ward(tmp_path)
    registry = Registry(ward.database)
    registry.first("starter", LIVE, now(), [PROOF])
    registry.add("next", NEW, who="anna", why="retrained", now=now(), proofs=[PROOF])
    config = f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n[model]\nstore = "{tmp_path}/models"\n'
    (tmp_path / "hilum.toml").write_text(config)
    yield Site(ward, registry)
    ward.close()


def test_from_candidate_to_live_and_back(site: Site) -> None:
    assert "candidate before, shadow now" in site.call("shadow", "next", "--why", "to be seen")
    said = site.call("promote", B, "--check")
    assert "FAIL" not in said and "ok   operating points" in said
    assert site.registry.wanted() == (A, B)
    assert "reads from now on" in site.call("promote", "next", "--why", "better")
    assert site.registry.wanted() == (B, None)
    assert "starter 0.2.0" in site.call("rollback", "--why", "too many flags")
    assert site.registry.wanted() == (A, None)
    told = site.json("history")
    assert [(line["action"], line["why"]) for line in told[:2]] == [("rolled back", "too many flags")] * 2
    assert told[0]["who"].endswith("(command line)")
    assert "too many flags" in site.call("history", "next", "--limit", "1")
    assert "nothing to go back to" in site.call("rollback", code=1)


def test_whoever_may_not_be_promoted_is_told_why(site: Site) -> None:
    assert "only a model that reads along is promoted" in site.call("promote", "next", code=1)
    bad = replace(NEW, files={"f": "bad"}, thresholds=LIVE.thresholds)
    site.registry.add("bad", bad, who="anna", why="", now=now(), proofs=[PROOF])
    site.call("shadow", "bad")
    assert "FAIL operating points" in site.call("promote", "bad", "--check", code=1)
    assert "to the last digit" in site.call("promote", "bad", code=1)
    assert site.registry.wanted()[0] == A


def test_two_people(site: Site) -> None:
    config = site.ward.folder / "hilum.toml"
    config.write_text(config.read_text() + "two_people = true\n")
    site.call("shadow", "next")
    assert "somebody else must" in site.call("promote", "next", code=1)


def test_what_there_is_and_who_reads_with_which(site: Site) -> None:
    site.registry.report(
        ModelReader(reader="host/1", model_id=A, since=now(), shadow_id=B, fault="no golden", dropped=3, seen_at=now())
    )
    said = site.call("registry")
    assert "host/1: reads with" in said and "(3 dropped)" in said and "no golden" in said
    rows = {row["model_id"]: row for row in site.json("registry")}
    assert (rows[A]["state"], rows[A]["readers"], rows[B]["state"]) == ("live", ["host/1"], "candidate")
    assert rows[B]["binary"]["low"] < rows[B]["binary"]["value"]


def test_an_empty_registry_says_how_it_is_filled(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    site = Site(ward, Registry(ward.database))
    (tmp_path / "hilum.toml").write_text(f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n')
    assert "the first worker that reads" in site.call("registry")
    assert "had none yet" in site.call("live-at", "2026-05-04T03:12", code=1)
    ward.close()


def test_what_was_live_at(site: Site) -> None:
    moment = (now() + timedelta(hours=1)).isoformat()
    assert "live still" in site.call("live-at", moment)
    (row,) = site.json("live-at", moment)
    assert (row["model_id"], row["until"], row["who"]) == (A, None, "configuration")
    assert "is no time" in site.call("live-at", "yesterday", code=2)
    assert "had none yet" in site.call("live-at", "2020-01-01", code=1)


def test_side_by_side(site: Site) -> None:
    assert "no model reads along" in site.call("compare", code=1)
    site.call("shadow", "next")
    for study, (aloud, silent) in enumerate(
        [((PNEUMOTHORAX,), ()), ((), (EFFUSION,)), ((EFFUSION,), (EFFUSION,)), ((), ())], start=1
    ):
        site.ward.study(study, read(*aloud))
        live, said = read(*aloud), read(*silent)
        said = replace(said, prediction=replace(said.prediction, model_id=B))
        Shadows(site.ward.database).keep(
            study, (said.prediction, said.decision), (live.prediction, live.decision), now()
        )
    (row,) = site.json("compare", "--days", "1")
    assert (row["films"], row["gained"], row["lost"], row["both"], row["neither"]) == (4, 1, 1, 1, 1)
    assert {"live": Urgency.STAT.name, "shadow": Urgency.ROUTINE.name, "studies": 1} in row["urgencies"]
    said_aloud = site.call("compare")
    assert "flags gained 1, lost 1" in said_aloud and "No flag is no all-clear" in said_aloud


def test_a_model_is_entered_by_its_name_in_the_store(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    site = Site(ward, Registry(ward.database))
    (tmp_path / "hilum.toml").write_text(f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n')
    assert f"starter 0.2.0 ({A}) is a candidate" in site.call("add", "starter", "--why", "shipped")
    assert site.registry.find("starter").state is ModelState.CANDIDATE
    assert "already" in site.call("add", "starter", code=1)
    assert "no model bundle named" in site.call("add", "nobody", code=1)
    ward.close()
