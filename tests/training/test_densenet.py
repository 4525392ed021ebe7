from __future__ import annotations

import keras
import numpy as np
import pytest

from training import densenet, speed
from worker.tensor.recipe import golden_film, to_tensor


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return densenet.build(15, 64)


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.stack([to_tensor(golden_film(100 + 40 * i, 120), 64) for i in range(2)])


def test_logits_are_the_mean_of_the_maps(model: keras.Model, films: np.ndarray) -> None:
    outputs = model.predict_on_batch(films)
    assert model.inputs[0].dtype == "uint8"
    assert outputs["maps"].shape == (2, 2, 2, 15)
    assert outputs["logits"].shape == (2, 15)
    assert outputs["logits"].dtype == np.float32
    assert np.allclose(outputs["maps"].mean(axis=(1, 2)), outputs["logits"], atol=1e-5)


def test_only_plain_layers(model: keras.Model) -> None:
    assert {type(layer).__name__ for layer in model.layers} == {
        "Activation",
        "AveragePooling2D",
        "BatchNormalization",
        "Concatenate",
        "Conv2D",
        "GlobalAveragePooling2D",
        "InputLayer",
        "MaxPooling2D",
        "Rescaling",
        "ZeroPadding2D",
    }


def test_imagenet_scaling_is_inside(model: keras.Model, films: np.ndarray) -> None:
    scaled = keras.Model(model.input, model.get_layer("imagenet").output).predict_on_batch(films)
    wanted = (films / 255.0 - densenet.IMAGENET_MEAN) / densenet.IMAGENET_STD
    assert np.allclose(scaled, wanted, atol=1e-4)


def test_the_graph_does_not_depend_on_what_was_built_before(model: keras.Model) -> None:
    assert densenet.build(15, 64).to_json() == model.to_json()


def test_weights_go_by_path_to_any_size_and_head(model: keras.Model) -> None:
    weights = densenet.weights_of(model)
    assert len(weights) == len(model.weights) == 606
    other = densenet.build(1, 32)
    densenet.load_weights(other, weights, head=False)
    got = densenet.weights_of(other)
    assert got["maps/kernel"].shape == (1, 1, 1024, 1)
    assert all((got[path] == weights[path]).all() for path in got if not path.startswith("maps/"))
    with pytest.raises(KeyError):
        densenet.load_weights(other, {}, head=False)
    with pytest.raises(ValueError, match="shape"):
        densenet.load_weights(other, weights)


@pytest.mark.usefixtures("small_model")
def test_the_quick_model_computes_the_same(films: np.ndarray) -> None:
    plain = densenet.build(3, 64)
    quick = speed.fused(plain)
    assert {w.path for w in quick.weights} == {w.path for w in plain.weights}
    densenet.load_weights(quick, densenet.weights_of(plain))
    for training in (False, True):
        one, two = (np.asarray(m(films, training=training)["logits"]) for m in (plain, quick))
        assert np.allclose(one, two, atol=1e-3)
    after, wanted = densenet.weights_of(quick), densenet.weights_of(plain)
    for path in wanted:
        assert np.allclose(after[path], wanted[path], rtol=1e-2, atol=1e-4), path
