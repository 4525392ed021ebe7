"""`hilum train` as an administrator gives it: real films, the real network (short), a bundle that is served."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from schemas.card import model_id, read_card
from tests.acceptance.harness import HILUM

PLAN = """
name = "tiny"
[model]
size = 64
[loss]
auxiliary = ["sex", "view", "age"]
[evaluate]
rounds = 20
[[multilabel]]
name = "64px"
size = 64
films = 64
[[binary]]
name = "64px"
size = 64
films = 32
"""
FILMS = 400  # of the small set


def hilum(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HILUM, *map(str, words)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture
def few(films: Path, tmp_path: Path) -> Path:
    """The small set's table and lists, with the films of some patients of either list."""
    nih, folder = films / "nih", tmp_path / "nih"
    (folder / "images_001" / "images").mkdir(parents=True)
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        (folder / name).symlink_to(nih / name)
    members = [(nih / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    of = {path.stem: path for size in ("128px", "256px") for path in (nih / size).iterdir()}
    for name in (*sorted(members[0])[:FILMS], *sorted(members[1])[: FILMS // 4]):
        path = of[Path(name).stem]
        (folder / "images_001" / "images" / path.name).symlink_to(path)
    return folder


def test_train_prove_import_serve(few: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    trained = hilum("train", "--data", few, "--preset", tmp_path / "plan.toml", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    bundle = tmp_path / "runs" / "tiny" / "bundle"
    card = read_card(bundle)
    sides = card.training["films"]
    assert sides["train"] + sides["validation"] == FILMS
    assert sides["test"] == FILMS // 4

    imported = hilum("models", "import", bundle, "--name", "tiny", folder=tmp_path)
    assert imported.returncode == 0, imported.stderr
    film = next((films / "png_dicom_pairs").glob("*.dcm"))
    scored = hilum("predict", "--json", film, folder=tmp_path, HILUM_MODEL__BUNDLE="tiny")
    assert scored.returncode == 0, scored.stderr
    answer = json.loads(scored.stdout)
    assert answer["not_analysed"] is None
    assert 0.0 < answer["binary"] < 1.0
    listed = hilum("models", "list", "--json", folder=tmp_path, HILUM_MODEL__BUNDLE="tiny").stdout
    mine = next(row for row in map(json.loads, listed.splitlines()) if row["name"] == "tiny")
    assert mine["in_service"]
    assert mine["model_id"] == model_id(card)
