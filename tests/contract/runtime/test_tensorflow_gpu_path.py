"""What TensorFlow does on a GPU (XLA, padded batches), on a small network and the CPU's XLA."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from schemas.errors import BundleInvalid, OutOfMemory
from tests.contract.runtime.drawn import draw_bundle, films
from worker.infer import tensorflow
from worker.infer.bundle import Bundle
from worker.infer.tensorflow import TensorFlow

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


@pytest.fixture
def runtime(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> TensorFlow:
    prepare = tensorflow._prepare
    monkeypatch.setattr(tensorflow, "_prepare", lambda threads: prepare(threads) or True)
    return TensorFlow(bundle, threads=2, max_batch=3)


def test_every_power_of_two_is_compiled_and_padding_is_cut_off(runtime: TensorFlow, bundle: Bundle) -> None:
    bundle.replay(runtime)  # 12 films: in three parts
    batch = films(SIZE, 9)
    alone = np.concatenate([runtime.run(batch[i : i + 1]).findings for i in range(9)])
    for count in range(1, 10):
        logits = runtime.run(batch[:count], maps=True)
        np.testing.assert_allclose(logits.findings, alone[:count], atol=1e-4)
        assert logits.finding_maps is not None
        assert logits.finding_maps.shape == (count, SIZE // 4, SIZE // 4, 15)


def test_a_full_gpu_is_out_of_memory(runtime: TensorFlow) -> None:
    def full(_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    runtime._forward = dict.fromkeys(runtime._forward, full)
    with pytest.raises(OutOfMemory, match="batch of 3"):
        runtime.run(films(SIZE, 3))


def test_weights_of_another_network_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    for leaf, wrong in (("maps/kernel", np.zeros((2, 2), np.float16)), ("maps/bias", None)):
        weights = dict(bundle.weights("binary"))
        weights.pop(leaf)
        if wrong is not None:
            weights[leaf] = wrong
        folder = tmp_path / leaf.replace("/", "-")
        folder.mkdir()
        for file in ("binary.json", "multilabel.json", "multilabel.npz"):
            (folder / file).write_bytes((bundle.folder / file).read_bytes())
        np.savez(folder / "binary.npz", **weights)
        broken = Bundle(folder=folder, card=bundle.card, model_id="", platt=bundle.platt)
        with pytest.raises(BundleInvalid, match="binary cannot be built"):
            TensorFlow(broken, threads=2, max_batch=1)
