"""A hospital for each test; stories that a database could spoil run on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.hospital import Hospital
from tests.browser import browser  # noqa: F401  a fixture
from tests.postgres import Cluster, postgres  # noqa: F401  a fixture


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A PACS that receives; workers are made by `hospital.hilum()`."""
    there = Hospital(tmp_path / "hospital")
    yield there
    there.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for the worker's own SQLite file; else a fresh PostgreSQL database."""
    if request.param == "sqlite":
        return ""
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.fresh()
