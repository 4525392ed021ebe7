"""A bundle read back by nothing but Keras' own means gives the golden logits; a failed export leaves the old one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from schemas.card import GOLDEN, MODELS, Calibration, ModelCard, model_id, read_card
from schemas.findings import LABELS
from training import network
from training.export import rounded, write_bundle
from training.golden import golden_films
from training.whole_file import Unwritten
from worker.tensor.recipe import fingerprint

CARD: dict[str, Any] = {
    "name": "t",
    "architecture": "densenet121",
    "version": "1",
    "thresholds": {"binary": 0.5},
    "calibration": {"binary": Calibration(scale=1.5, offset=-0.5)},
    "split_hash": "abc",
    "metrics": {"test": {"macro_auroc": {"value": 0.5, "low": None, "high": None}}},
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real network, random weights with the statistics shaken, at 64 px."""
    rng = np.random.default_rng(0)
    models = []
    for outputs in (1, 15):
        model = network.build(outputs, 64)
        network.load_weights(
            model,
            {
                path: value * rng.uniform(0.9, 1.1, value.shape) if path.endswith(("gamma", "variance")) else value
                for path, value in network.weights_of(model).items()
            },
        )
        models.append(model)
    folder = tmp_path_factory.mktemp("bundles") / "real"
    write_bundle(folder, binary=models[0], multilabel=models[1], golden=golden_films(64, 2), card=CARD)
    return folder


def test_layout_card_and_hashes(real: Path) -> None:
    card = read_card(real)
    assert sorted(p.name for p in real.iterdir()) == sorted([*card.files, "card.json"])
    assert set(card.files) == {f"{m}.{e}" for m in MODELS for e in ("json", "npz")} | {GOLDEN}
    for name, digest in card.files.items():
        assert hashlib.sha256((real / name).read_bytes()).hexdigest() == digest
    assert card.labels == LABELS
    assert card.input_size == 64
    assert card.recipe_fingerprint == fingerprint(64)
    assert card.calibration["binary"] == Calibration(scale=1.5, offset=-0.5)
    assert len(model_id(card)) == 16


def test_read_back_by_keras_it_gives_the_golden_logits(real: Path) -> None:
    with np.load(real / GOLDEN) as golden:
        inputs, wanted = golden["inputs"], {"binary": golden["binary"][:, None], "multilabel": golden["findings"]}
    assert inputs.dtype == np.uint8
    for name in MODELS:
        model = keras.models.model_from_json((real / f"{name}.json").read_text())
        with np.load(real / f"{name}.npz") as weights:
            for variable in model.weights:
                variable.assign(weights[variable.path].astype(np.float32))
        got = model.predict_on_batch(inputs)
        assert np.abs(got["logits"] - wanted[name]).max() < 1e-3
        assert got["maps"].shape == (2, 2, 2, wanted[name].shape[1])


def test_weights_are_small(real: Path) -> None:
    assert sum(p.stat().st_size for p in real.iterdir()) < 32 << 20


def test_rounding_keeps_small_variances() -> None:
    tiny = {"bn/moving_variance": np.array([3e-9], np.float32), "c/kernel": np.ones((1, 1, 1, 1), np.float32) / 3}
    got = rounded(tiny)
    assert got["bn/moving_variance"][0] == tiny["bn/moving_variance"][0]
    assert got["c/kernel"].dtype == np.float16


def test_golden_films_are_drawn_and_differ() -> None:
    films = golden_films(64)
    assert films.shape == (4, 64, 64, 3)
    assert len({film.tobytes() for film in films}) == 4
    assert (golden_films(64) == films).all()


@pytest.mark.usefixtures("small_model")
def test_same_models_same_id_and_a_failed_export_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"binary": network.build(1, 32), "multilabel": network.build(15, 32)}
    folder = tmp_path / "store" / "t"
    first = write_bundle(folder, **models, golden=golden_films(32, 1), card=CARD)
    again = write_bundle(folder, **models, golden=golden_films(32, 1), card=CARD | {"version": "2"})
    assert model_id(first) == model_id(again)
    assert read_card(folder) == again

    def full_disk(self: ModelCard) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ModelCard, "to_json", full_disk)
    with pytest.raises(Unwritten, match="No space"):
        write_bundle(folder, **models, golden=golden_films(32, 1), card=CARD | {"version": "3"})
    assert read_card(folder) == again
    assert [p.name for p in folder.parent.iterdir()] == ["t"], "nothing half-made is left behind"
