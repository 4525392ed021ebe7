from __future__ import annotations

from typing import get_args

import keras
import numpy as np
import pytest

from training import network, speed
from training.description import Backbone
from worker.tensor.recipe import golden_film, to_tensor


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network.build(15, 64)


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


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_scaling_is_inside_and_what_the_published_weights_expect(backbone: str, films: np.ndarray) -> None:
    module = {"densenet121": "densenet", "inception_resnet_v2": "inception_resnet_v2"}.get(backbone, backbone)
    theirs = getattr(keras.applications, module).preprocess_input(films.astype(np.float32))
    how = network.SCALINGS[backbone]
    ours = films.astype(np.float32) * np.float32(how.scale) + np.float32(how.offset)
    assert np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("backbone", ["densenet121", "mobilenet", "xception"])
def test_the_graph_does_not_depend_on_what_was_built_before(backbone: str) -> None:
    one, two = (network.build(15, 75, backbone) for _ in range(2))
    assert one.name == backbone
    assert one.to_json() == two.to_json()
    assert [w.path for w in one.weights] == [w.path for w in two.weights]
    assert len({w.path for w in one.weights}) == len(one.weights)


def test_weights_go_by_path_to_any_size(model: keras.Model) -> None:
    weights = network.weights_of(model)
    assert len(weights) == len(model.weights) == 606
    other = network.build(15, 32)
    network.load_weights(other, weights)
    got = network.weights_of(other)
    assert all((got[path] == weights[path]).all() for path in got)
    with pytest.raises(KeyError):
        network.load_weights(other, {})
    with pytest.raises(ValueError, match="shape"):
        network.load_weights(other, network.columns(weights, [0]))


def test_columns_of_the_last_layer_are_chosen_and_repeated(model: keras.Model) -> None:
    weights = network.weights_of(model)
    got = network.columns(weights, [3, 3, 0])
    assert (got["maps/kernel"][..., 1] == weights["maps/kernel"][..., 3]).all()
    assert got["maps/bias"].shape == (3,)


def test_a_local_file_of_imagenet_weights_is_taken(tmp_path: object) -> None:
    theirs = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3))
    path = f"{tmp_path}/mobilenet.weights.h5"
    theirs.save_weights(path)
    ours = network.weights_of(network.build(2, 224, "mobilenet", imagenet=path))
    for variable in theirs.weights:
        assert (ours[variable.path] == np.asarray(variable)).all(), variable.path


@pytest.mark.usefixtures("small_model")
def test_the_quick_model_computes_the_same(films: np.ndarray) -> None:
    plain = network.build(3, 64)
    quick = speed.fused(plain)
    assert {w.path for w in quick.weights} == {w.path for w in plain.weights}
    network.load_weights(quick, network.weights_of(plain))
    for training in (False, True):
        one, two = (np.asarray(m(films, training=training)["logits"]) for m in (plain, quick))
        assert np.allclose(one, two, atol=1e-3)
    after, wanted = network.weights_of(quick), network.weights_of(plain)
    for path in wanted:
        assert np.allclose(after[path], wanted[path], rtol=1e-2, atol=1e-4), path
