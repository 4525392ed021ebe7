"""From a folder in NIH's layout to a bundle, with a small model in DenseNet's place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from schemas.card import read_card
from schemas.findings import LABELS, Label
from training import flow
from training.cli import app
from training.fit import Stage
from training.nih_index import read_index, targets

COLUMNS = {"binary", *LABELS}


@pytest.mark.usefixtures("small_model")
def test_from_films_to_bundle(nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Stage(name="short", size=32, epochs=1, batch=8)
    monkeypatch.setattr(flow, "STAGES", (short, replace(short, name="longer", size=48)))
    monkeypatch.setattr(flow, "BINARY", replace(short, name="binary"))
    monkeypatch.setattr(flow, "CACHE_SIZE", 48)
    monkeypatch.setattr(flow, "SIZE", 64)
    (nih / "images" / "00000002_000.png").write_bytes(b"no film")
    words = ["fit", str(nih), "--run", str(tmp_path / "run"), "--bundle", str(tmp_path / "bundle"), "--name", "small"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    card = read_card(tmp_path / "bundle")
    assert card.name == "small"
    assert set(card.thresholds) == set(card.calibration) == COLUMNS
    assert all(0 < t < 1 for t in card.thresholds.values())
    assert card.metrics["test"]["films"] == 10
    assert card.metrics["test"]["patients"] == 5
    assert set(card.metrics["test"]["findings"]) == set(LABELS)
    assert [stage["name"] for stage in card.training["stages"]] == ["short", "longer", "binary"]
    assert card.limits
    json.loads((tmp_path / "bundle" / "card.json").read_text(), parse_constant=pytest.fail)


def test_soft_targets_are_mixed_in_for_the_films_that_have_them(nih: Path, tmp_path: Path) -> None:
    films = read_index(nih / flow.TABLE, [nih]).films
    hard = targets(films)
    columns = [f"prob_{label}" for label in LABELS[:-1]]
    lines = [
        ",".join(["Image Index", *columns]),
        ",".join([films[2].name, *["0.2"] * 14]),
        ",".join(["x", *["1"] * 14]),
    ]
    (tmp_path / "teacher.csv").write_text("\n".join(lines))
    soft = flow.soften(hard, films, tmp_path / "teacher.csv")
    effusion, hernia = LABELS.index(Label.EFFUSION), LABELS.index(Label.HERNIA)
    assert soft[2, effusion] == pytest.approx(0.6)
    assert soft[2, hernia] == pytest.approx(0.1)
    assert soft[2, 14] == hard[2, 14]
    assert (np.delete(soft, 2, axis=0) == np.delete(hard, 2, axis=0)).all()


def test_binary_starts_as_no_finding_turned_round() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "maps/kernel": rng.normal(size=(1, 1, 8, 15)).astype(np.float32),
        "maps/bias": rng.normal(size=15).astype(np.float32),
        "conv/kernel": np.ones((1, 1, 3, 8), np.float32),
    }
    binary = flow.binary_head(weights)
    x = rng.normal(size=8)
    one = x @ weights["maps/kernel"][0, 0, :, 14] + weights["maps/bias"][14]
    other = x @ binary["maps/kernel"][0, 0, :, 0] + binary["maps/bias"][0]
    assert other == pytest.approx(-one)
    assert binary["conv/kernel"] is weights["conv/kernel"]
    assert flow.any_finding(np.eye(15, dtype=np.float32)[[3, 14]]).tolist() == [[1.0], [0.0]]
