"""Every test of this folder runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.record.given import Record
from tests.postgres import Cluster, postgres  # noqa: F401  a fixture
from worker.record.database import Database

BACKENDS = ["sqlite", "postgresql"]


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty/hilum.db"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.fresh()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URL by backend of a migrated database to copy from."""
    return {}


@pytest.fixture(params=BACKENDS)
def url(
    request: pytest.FixtureRequest,
    migrated: dict[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A migrated database."""
    if request.param == "sqlite":
        if request.param not in migrated:
            migrated[request.param] = f"sqlite:///{tmp_path_factory.mktemp('template')}/hilum.db"
            _migrate(migrated[request.param])
        shutil.copy(migrated[request.param].removeprefix("sqlite:///"), tmp_path / "hilum.db")
        return f"sqlite:///{tmp_path}/hilum.db"
    cluster: Cluster = request.getfixturevalue("postgres")
    if request.param not in migrated:
        migrated[request.param] = cluster.fresh()
        _migrate(migrated[request.param])
    return cluster.fresh(migrated[request.param])


def _migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


@pytest.fixture
def record(url: str) -> Iterator[Record]:
    """Every door to one migrated database."""
    database = Database(url)
    yield Record(database, url)
    database.close()
