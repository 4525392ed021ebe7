"""Refusals, and what no architecture of the contract suite happens to use; that suite compares with Keras itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import openvino as ov
import pytest

from schemas.errors import BundleInvalid
from worker.infer import keras_graph

WEIGHTS = {"head/kernel": np.array([[1.0], [10.0], [100.0]], np.float16), "head/bias": np.array([0.5], np.float32)}


def layer(kind: str, name: str, *inputs: tuple[str, int], calls: int = 1, **config: Any) -> dict[str, Any]:
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [i, call, 0]}} for i, call in inputs]
    args = [tensors] if len(tensors) > 1 else tensors
    nodes = [{"args": args, "kwargs": {}}] if inputs else []
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


IMAGE = layer("InputLayer", "film", batch_shape=[None, 2, 2, 3], dtype="uint8")
POOL = layer("GlobalAveragePooling2D", "pool", ("film", 0), data_format="channels_last", keepdims=False)
HEAD = layer("Dense", "head", ("pool", 0), units=1, use_bias=True, activation="linear")


def graph(*layers: dict[str, Any], logits: str = "head") -> str:
    return json.dumps({"config": {"layers": layers, "output_layers": {"logits": [logits, 0, 0]}}})


def run(model: ov.Model, film: np.ndarray) -> Any:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(film)["logits"]


def test_a_small_graph() -> None:
    film = np.zeros((1, 2, 2, 3), np.uint8)
    film[..., 0], film[0, 0, 0, 1], film[..., 2] = 1, 4, 3
    assert run(keras_graph.build(graph(IMAGE, POOL, HEAD), WEIGHTS), film) == pytest.approx(1 + 10 + 300 + 0.5)


def test_the_order_of_the_layers_does_not_matter() -> None:
    film = np.ones((1, 2, 2, 3), np.uint8)
    assert run(keras_graph.build(graph(HEAD, POOL, IMAGE), WEIGHTS), film) == pytest.approx(111.5)


def test_an_unknown_layer_is_named_with_the_mend() -> None:
    lambda_layer = layer("Lambda", "evil", ("film", 0), function="__import__('os')")
    with pytest.raises(BundleInvalid, match=r"layer evil \(Lambda\): this kind of layer.*runtime = \"tensorflow\""):
        keras_graph.build(graph(IMAGE, lambda_layer, POOL, HEAD), WEIGHTS)


@pytest.mark.parametrize(
    "layers",
    [
        (IMAGE, POOL, layer("Dense", "head", ("pool", 0), units=1, use_bias=True, activation="mish")),
        (IMAGE, layer("ReLU", "pool", ("film", 0), threshold=1.0), HEAD),
        (
            IMAGE,
            layer("GlobalAveragePooling2D", "pool", ("film", 0), data_format="channels_first", keepdims=False),
            HEAD,
        ),
    ],
)
def test_an_unknown_option_is_refused(layers: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(BundleInvalid, match="cannot be served by OpenVINO"):
        keras_graph.build(graph(*layers), WEIGHTS)


def test_weights_that_do_not_fit_are_named() -> None:
    with pytest.raises(BundleInvalid, match=r"layer head \(Dense\).*'head/kernel'"):
        keras_graph.build(graph(IMAGE, POOL, HEAD), {})
    with pytest.raises(BundleInvalid, match=r"layer head \(Dense\)"):
        keras_graph.build(graph(IMAGE, POOL, HEAD), {**WEIGHTS, "head/kernel": np.ones((7, 1), np.float16)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"config": {"layers": []}}',
        '{"config": {"layers": [{}], "output_layers": {}}}',
        graph(POOL, HEAD),
        graph(IMAGE, layer("InputLayer", "second", batch_shape=[None, 2, 2, 3]), POOL, HEAD),
        graph(IMAGE, HEAD),
        graph(IMAGE, POOL, HEAD, logits="nowhere"),
        graph(IMAGE, layer("GlobalAveragePooling2D", "pool", ("head", 0), keepdims=False), HEAD),
        json.dumps({"config": {"layers": [IMAGE, POOL, HEAD], "output_layers": [["head", 0, 0]]}}),
    ],
)
def test_what_is_no_such_graph_is_refused(text: str) -> None:
    with pytest.raises(BundleInvalid):
        keras_graph.build(text, WEIGHTS)
