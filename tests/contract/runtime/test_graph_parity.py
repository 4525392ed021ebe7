"""OpenVINO's graph against Keras itself, in float32, for the architectures that a site might train."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import openvino as ov
import pytest
from keras import layers

from tests.contract.runtime.drawn import enliven, films
from worker.infer import keras_graph


def assert_alike(model: keras.Model, batch: np.ndarray) -> None:
    graph = keras_graph.build(model.to_json(), {v.path: np.asarray(v) for v in model.weights})
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2})
    expected = {name: np.asarray(value) for name, value in model(batch, training=False).items()}
    got = compiled(batch)
    assert {output.any_name for output in compiled.outputs} == set(expected)
    for name, value in expected.items():
        scale = value.std()
        assert scale > 0
        assert np.ptp(value.reshape(len(batch), -1), axis=0).max() > 0.1 * scale, "answers must depend on the film"
        np.testing.assert_allclose(got[name], value, atol=1e-3 * scale)


@pytest.mark.parametrize("name", ["MobileNet", "Xception", "VGG16", "InceptionResNetV2", "DenseNet121"])
def test_architectures(name: str) -> None:
    size = 75  # the least of InceptionResNetV2; odd, so that "same" pads unevenly
    film = keras.Input((size, size, 3), dtype="uint8", name="film")
    scaled = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(layers.Rescaling(1 / 255)(film))
    keras.utils.set_random_seed(3)
    backbone = getattr(keras.applications, name)(include_top=False, weights=None, input_tensor=scaled)
    maps = layers.Conv2D(4, 1, name="maps")(backbone.output)
    logits = layers.GlobalAveragePooling2D(name="logits")(maps)
    model = keras.Model(film, {"logits": logits, "maps": maps})
    enliven(model, films(size))
    assert_alike(model, films(size, 3))


LAYERS: dict[str, Any] = {
    **{
        f"conv-{padding}-{kernel}-{stride}": layers.Conv2D(5, kernel, strides=stride, padding=padding)
        for padding in ("same", "valid")
        for kernel in (1, 2, 3, (2, 5))
        for stride in (1, 2, 3)
    },
    "conv-dilated": layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "conv-groups": layers.Conv2D(6, 3, groups=3, activation="relu"),
    "depthwise-same": layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
    "depthwise-valid": layers.DepthwiseConv2D(2, use_bias=False),
    "separable": layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, activation="silu"),
    **{
        f"{kind.__name__}-{padding}-{stride}": kind(3, strides=stride, padding=padding)
        for kind in (layers.MaxPooling2D, layers.AveragePooling2D)
        for padding in ("same", "valid")
        for stride in (1, 2, None)
    },
    "pad": layers.ZeroPadding2D(((0, 1), (2, 3))),
    "batchnorm-bare": layers.BatchNormalization(scale=False, center=False),
    "relu6": layers.ReLU(6.0),
    "sigmoid": layers.Activation("sigmoid"),
    "tanh": layers.Activation("tanh"),
    "relu6-activation": layers.Activation("relu6"),
    "dense-per-pixel": layers.Dense(3),
    "reshape": layers.Reshape((13, 11, 9)),
    "reshape-flat": layers.Reshape((-1, 3)),
    "flatten": layers.Flatten(),
    "dropout": layers.Dropout(0.5),
    "global-keepdims": layers.GlobalAveragePooling2D(keepdims=True),
    "rescaling-per-channel": layers.Rescaling([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_one_by_one(name: str) -> None:
    """11 x 13 pixels of 9 channels, made of the film by a fixed layer, so that nothing is even."""
    batch = np.random.default_rng(5).integers(0, 256, (2, 11, 13, 3), dtype=np.uint8)
    film = keras.Input((11, 13, 3), dtype="uint8")
    x = layers.Rescaling(1 / 128, -1.0)(film)
    wide = x if name == "rescaling-per-channel" else layers.Concatenate()([x, x, x])
    keras.utils.set_random_seed(4)
    fresh = type(LAYERS[name]).from_config(LAYERS[name].get_config())
    model = keras.Model(film, {"out": fresh(wide)})
    rng = np.random.default_rng(6)
    for variable in model.weights:
        variable.assign(
            rng.uniform(0.2, 1.0, variable.shape).astype(np.float32) - 0.4 * ("variance" not in variable.path)
        )
    assert_alike(model, batch)


def test_a_layer_that_is_called_twice_and_an_average_after_a_pointwise_convolution() -> None:
    film = keras.Input((12, 12, 3), dtype="uint8")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = shared(shared(layers.Rescaling(1 / 255)(film)))
    pointwise = layers.Conv2D(4, 1, use_bias=False)(x)
    pooled = layers.AveragePooling2D(3, strides=2, padding="same")(pointwise)
    strided = layers.AveragePooling2D(2)(layers.Conv2D(4, 1, strides=2, use_bias=False)(x))
    vector = layers.Dense(2)(layers.Flatten()(layers.Concatenate(axis=1)([pooled, pooled])))
    model = keras.Model(film, {"pooled": pooled, "strided": strided, "unpooled": pointwise, "vector": vector})
    assert_alike(model, np.random.default_rng(5).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8))
