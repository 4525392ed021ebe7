"""Fixtures that every suite shares."""

from __future__ import annotations

import os
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
