"""A hospital for each test; each story on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.hospital import Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A PACS that receives; workers are made by `hospital.hilum()`."""
    there = Hospital(tmp_path / "hospital")
    yield there
    there.close()
