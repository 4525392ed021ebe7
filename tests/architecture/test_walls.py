"""The walls of the house stand (import-linter), and each of them is seen to catch a violation."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = ROOT / "pyproject.toml"
CONTRACTS = {c["id"]: c for c in tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]}

# (contract, the file that breaks it, the line that breaks it): at least one canary for each contract.
CANARIES = [
    ("house", "worker/receive/canary.py", "from worker.spool import room"),
    ("house", "worker/decode/canary.py", "from worker import settings"),
    ("house", "worker/infer/canary.py", "from worker.corridor import room"),
    ("house", "worker/notify/canary.py", "from worker import assemble"),
    ("house", "worker/receive/canary.py", "from worker import doors"),
    ("house", "worker/channels/canary.py", "from worker import assemble"),
    ("house", "worker/corridor/canary.py", "from worker import settings"),
    ("house", "worker/watch/canary.py", "from worker.record import room"),
    ("house", "worker/lounge/__init__.py", ""),  # a new room must be given its place
    ("ground-floor", "schemas/canary.py", "from worker import ports"),
    ("training", "worker/infer/canary.py", "from training import fit"),
    ("training", "worker/cli/canary.py", "import training.fit"),
    ("skew", "training/canary.py", "from worker.decode import room"),
    ("skew", "training/canary.py", "from worker import settings"),
    ("settings", "worker/settings/canary.py", "from worker.record import room"),
    ("onlookers", "worker/worklist/canary.py", "from worker.decode import room"),
    ("onlookers", "worker/upkeep/canary.py", "from worker.notify import room"),
    ("simulate", "worker/simulate/canary.py", "from worker.decode import room"),
    ("pure", "worker/tensor/canary.py", "import pydicom.pixels"),
    ("pure", "worker/decide/canary.py", "from sqlalchemy import select"),
    ("pure", "worker/tensor/canary.py", "import tensorflow as tf"),
    ("frameworks", "worker/corridor/canary.py", "import keras"),
    ("frameworks", "worker/record/canary.py", "def lazily():\n    import tensorflow"),
    ("network", "worker/decode/canary.py", "from pynetdicom.sop_class import Verification"),
    ("network", "worker/worklist/web/canary.py", "import pynetdicom"),
    ("database", "worker/upkeep/canary.py", "from sqlalchemy.orm import Session"),
    ("database", "schemas/flag_canary.py", "import sqlalchemy"),
    ("calendar", "worker/upkeep/canary.py", "from apscheduler.schedulers.background import BackgroundScheduler"),
    ("web", "worker/assemble/canary.py", "import fastapi"),
    ("web", "worker/doors/canary.py", "import uvicorn"),
]


@pytest.fixture
def empty_house(tmp_path: Path) -> Path:
    """A tree of empty packages by the names of the plan, with the project's own contracts."""
    layers = CONTRACTS["house"]["layers"]
    rooms = [f"worker/{name.strip()}" for layer in layers for name in layer.split("|")]
    for package in ["schemas", "schemas/migrations", "worker", *rooms, "worker/worklist/web", "training"]:
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        if package != "worker":
            (tmp_path / package / "room.py").touch()
    (tmp_path / "training" / "fit.py").touch()
    (tmp_path / "pyproject.toml").write_bytes(PYPROJECT.read_bytes())
    return tmp_path


def lint(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """import-linter on a tree, as `make lint` runs it."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", *options]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_the_walls_stand() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_empty_house_breaks_no_contract(empty_house: Path) -> None:
    result = lint(empty_house)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("contract", "file", "line"), CANARIES)
def test_a_planted_violation_is_caught(empty_house: Path, contract: str, file: str, line: str) -> None:
    planted = empty_house / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(line + "\n")
    result = lint(empty_house, "--contract", contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout, result.stdout + result.stderr


def test_what_is_allowed_stays_allowed(empty_house: Path) -> None:
    for file, line in [
        ("training/fit.py", "from worker.tensor import room"),
        ("worker/infer/allowed.py", "import openvino, tensorflow, keras"),
        ("worker/record/allowed.py", "import sqlalchemy, alembic.command"),
        ("schemas/tables.py", "import sqlalchemy.orm"),
        ("schemas/migrations/env.py", "import alembic"),
        ("worker/upkeep/calendar.py", "import apscheduler"),
        ("worker/worklist/web/app.py", "import fastapi, jinja2, uvicorn\nfrom worker.record import room"),
        ("worker/worklist/mwl_scp.py", "import pynetdicom"),
        ("worker/assemble/allowed.py", "from worker.corridor import room\nfrom worker.record import room as r"),
        ("worker/corridor/allowed.py", "from worker.decode import room\nfrom worker.ports import room as r"),
    ]:
        (empty_house / file).write_text(line + "\n")
    result = lint(empty_house)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_contract_has_a_canary() -> None:
    assert {contract for contract, _, _ in CANARIES} == set(CONTRACTS)
