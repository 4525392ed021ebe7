"""Exports as other programs take them: OpenVINO's own tools and Keras' own loader, and the way back in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import openvino as ov
import pytest
from keras import layers

from schemas.card import MODELS, read_card
from schemas.errors import BundleInvalid, ConfigurationError, GoldenMismatch
from schemas.findings import LABELS
from tests.contract.runtime.drawn import draw_bundle, films
from worker.infer import exports, keras_graph
from worker.infer.bundle import TOLERANCE, Bundle, open_bundle
from worker.infer.exports import export_keras, export_openvino, prove
from worker.infer.store import import_bundle, pack

SIZE = 32


def small(outputs: int) -> keras.Model:
    film = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(film)
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    maps = layers.Conv2D(outputs, 1, name="maps")(x)
    return keras.Model(film, {"logits": layers.GlobalAveragePooling2D(name="logits")(maps), "maps": maps})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return draw_bundle(tmp_path_factory.mktemp("bundles") / "small", SIZE, small)


@pytest.mark.parametrize("half", [False, True])
def test_the_ir_is_read_by_openvino_alone(bundle: Bundle, tmp_path: Path, half: bool) -> None:
    target = tmp_path / "ir"
    assert export_openvino(bundle, target, half=half) <= TOLERANCE
    assert {p.name for p in target.iterdir()} == {
        *(f"{model}.{kind}" for model in MODELS for kind in ("xml", "bin")),
        "card.json",
        "labels.txt",
    }
    assert (target / "labels.txt").read_text().splitlines() == list(LABELS)
    # Another process, which knows nothing of ours.
    script = """
import json, sys
import numpy as np, openvino as ov
batch = np.load(sys.argv[2])
model = ov.Core().read_model(sys.argv[1])
answers = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)
print(json.dumps({name: answers[name].tolist() for name in ("logits", "maps")}))
"""
    np.save(tmp_path / "batch.npy", films(SIZE))
    with np.load(bundle.folder / "golden.npz") as golden:
        wanted = {"binary": golden["binary"][:, None], "multilabel": golden["findings"]}
    for model in MODELS:
        command = [sys.executable, "-c", script, str(target / f"{model}.xml"), str(tmp_path / "batch.npy")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        answers = {name: np.array(values) for name, values in json.loads(done.stdout).items()}
        np.testing.assert_allclose(answers["logits"], wanted[model], atol=0.03 if half else 1e-3)
        assert answers["maps"].shape == (12, SIZE // 4, SIZE // 4, wanted[model].shape[1])
        np.testing.assert_allclose(answers["maps"].mean(axis=(1, 2)), answers["logits"], atol=1e-3)


def test_half_is_half_the_size_and_says_who_it_is(bundle: Bundle, tmp_path: Path) -> None:
    export_openvino(bundle, tmp_path / "whole")
    export_openvino(bundle, tmp_path / "half", half=True)
    whole, half = ((tmp_path / name / "binary.bin").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    about = ov.Core().read_model(tmp_path / "half" / "multilabel.xml").get_rt_info()["hilum"]
    assert about["model_id"].value == bundle.model_id
    assert about["labels"].value.split(", ") == list(LABELS)


def test_what_does_not_answer_as_training_did_is_not_left_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that spoils the weights; a disk that loses half of a file."""
    save = ov.save_model

    def spoil(model: ov.Model, path: Path, **options: object) -> None:
        weights = {key: 1.5 * value for key, value in bundle.weights(path.stem).items()}
        save(keras_graph.build(bundle.graph(path.stem), weights), path, **options)

    def lose(model: ov.Model, path: Path, **options: object) -> None:
        save(model, path, **options)
        content = path.with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(content[: len(content) // 2])

    for fault, error, words in (
        (spoil, GoldenMismatch, "golden film"),
        (lose, BundleInvalid, "cannot be read back"),
    ):
        monkeypatch.setattr(ov, "save_model", fault)
        with pytest.raises(error, match=words):
            export_openvino(bundle, tmp_path / "ir")
        assert list(tmp_path.iterdir()) == []


def test_keras_loads_its_own_files(bundle: Bundle, tmp_path: Path) -> None:
    assert export_keras(bundle, tmp_path / "keras") <= TOLERANCE
    with np.load(bundle.folder / "golden.npz") as golden:
        wanted, inputs = golden["findings"], golden["inputs"]
    model = keras.models.load_model(tmp_path / "keras" / "multilabel.keras")
    np.testing.assert_allclose(np.asarray(model(inputs)["logits"]), wanted, atol=1e-3)
    assert read_card(tmp_path / "keras") == bundle.card
    with pytest.raises(ConfigurationError, match="there already"):
        export_keras(bundle, tmp_path / "keras")


def test_a_runtime_that_is_not_installed_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "installed_runtimes", lambda: ())
    for export in (export_openvino, export_keras):
        with pytest.raises(ConfigurationError, match="is not installed here; pip install"):
            export(bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_both_runtimes_are_held_against_each_other(bundle: Bundle) -> None:
    found = prove(bundle, ("openvino", "tensorflow"), threads=2)
    assert len(found) == 3
    assert found["parity"] <= TOLERANCE
    assert all(off <= TOLERANCE for off in found.values())


def test_there_and_back(bundle: Bundle, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "small.zip")
    taken = import_bundle(
        tmp_path / "small.zip",
        tmp_path / "store",
        fingerprint=lambda _: "drawn",
        prove=lambda staged: prove(staged, ("openvino",), threads=2),
    )
    assert taken.model_id == bundle.model_id
    assert open_bundle("small", [tmp_path / "store"], lambda _: "drawn").card == bundle.card
