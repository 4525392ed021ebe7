"""A ward and a browser's view of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.unit.worklist.ward import Ward


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """An empty record."""
    made = Ward(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(ward: Ward) -> TestClient:
    """An administrator's browser on that record."""
    return ward.client()
