"""Fixtures that every suite shares."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def films_folder() -> Path:
    """The folder of real films (never part of the repository). Fails, never skips, when it is missing."""
    folder = Path(os.environ.get("CHEST_FILMS", ROOT.parent / "shared" / "data")).resolve()
    if not (folder / "dicom" / "index.csv").is_file():
        pytest.fail(f"real films not found in {folder}; set CHEST_FILMS to the folder that holds dicom/index.csv")
    return folder


@pytest.fixture(scope="session")
def films() -> Path:
    """The folder of real films."""
    return films_folder()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command under test sets logging up for its own streams, which are closed when the next test logs."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
