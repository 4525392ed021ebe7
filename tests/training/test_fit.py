"""The loop on a small model: it learns, it can be interrupted, it ends in time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from training.augment import Augmentation
from training.fit import Films, Stage, fit, predict

pytestmark = pytest.mark.usefixtures("small_model")

MILD = Augmentation(rotation=2, shift=0.02, zoom=0.02, contrast=0.1, brightness=5, noise=1)


def stage(**changes: object) -> Stage:
    plan = {"name": "t", "size": 32, "epochs": 4, "batch": 8, "learning_rate": 0.02, "ema": 0.5, "augmentation": MILD}
    return Stage(**(plan | changes))  # type: ignore[arg-type]


@pytest.fixture
def drawn() -> Films:
    """Label 0: the lower half is bright. Label 1: dark films."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (64, 40, 40), dtype=np.uint8)
    pixels[::2, 20:, :] += 120
    pixels[:16] //= 2
    targets = np.zeros((64, 2), np.float32)
    targets[::2, 0] = 1
    targets[:16, 1] = 1
    return Films(pixels=pixels, targets=targets)


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())  # type: ignore[no-any-return]


def test_it_learns(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    weights = fit(stage(epochs=8), drawn, drawn, tmp_path, progress)
    assert history(tmp_path)[-1]["loss"] < 0.8 * history(tmp_path)[0]["loss"]
    logits = predict(weights, drawn.pixels, 32)
    assert logits.shape == (64, 2)
    assert logits[::2, 0].min() > logits[1::2, 0].max()


def test_one_step_lowers_the_loss(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    plan = stage(
        epochs=2,
        batch=64,
        learning_rate=0.01,
        warm_up=0.0,
        augmentation=Augmentation(
            **dict.fromkeys(("rotation", "shift", "zoom", "contrast", "brightness", "noise", "flip"), 0.0)
        ),
    )
    fit(plan, drawn, drawn, tmp_path, progress)
    first, second = (epoch["loss"] for epoch in history(tmp_path))
    assert second < first


def test_resumed_equals_uninterrupted(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    whole = fit(stage(), drawn, drawn, tmp_path / "whole", progress)

    class Unplugged(Exception):
        pass

    def clock() -> float:
        if (tmp_path / "cut" / "checkpoint.npz").exists():
            raise Unplugged
        return 0.0

    with pytest.raises(Unplugged):
        fit(stage(), drawn, drawn, tmp_path / "cut", progress, clock=clock)
    assert not (tmp_path / "cut" / "checkpoint.new.npz").exists()
    resumed = fit(stage(), drawn, drawn, tmp_path / "cut", progress)
    assert [epoch["epoch"] for epoch in history(tmp_path / "cut")] == [1, 2, 3, 4]
    for path, value in whole.items():
        assert np.allclose(resumed[path], value, atol=2e-3), path


def test_a_finished_stage_is_not_trained_again(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    first = fit(stage(epochs=1), drawn, drawn, tmp_path, progress)
    again = fit(stage(epochs=1), drawn, drawn, tmp_path, progress)
    assert len(history(tmp_path)) == 1
    assert all((first[path] == again[path]).all() for path in first)


def test_it_ends_when_its_minutes_are_over(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    ticks = iter(range(10_000))
    fit(stage(epochs=1000, minutes=1.0), drawn, drawn, tmp_path, progress, clock=lambda: float(next(ticks)))
    assert 1 <= history(tmp_path)[-1]["epoch"] < 10


def test_it_starts_from_given_weights(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    weights = fit(stage(epochs=8), drawn, drawn, tmp_path / "a", progress)
    fit(stage(epochs=1, learning_rate=1e-5), drawn, drawn, tmp_path / "b", progress, start=weights)
    assert history(tmp_path / "b")[0]["loss"] < 0.8 * history(tmp_path / "a")[0]["loss"]


def test_what_comes_after_training_is_in_float32(drawn: Films, tmp_path: Path, progress: Progress) -> None:
    weights = fit(stage(epochs=1), drawn, drawn, tmp_path, progress)
    before = predict(weights, drawn.pixels, 32)
    rounded_to_bf16 = (before.view(np.uint32) & 0xFFFF == 0).mean()
    assert rounded_to_bf16 < 0.1
