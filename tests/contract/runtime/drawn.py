"""Bundles with random weights whose answers depend on the film, so that a wrong graph cannot pass for a right one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from schemas.card import MODELS, Calibration, ModelCard
from schemas.findings import LABELS
from worker.infer.bundle import Bundle, open_bundle

SPREAD = 1.0  # standard deviation of every logit over the films
Build = Callable[[int], keras.Model]


def films(size: int, count: int = 12) -> NDArray[np.uint8]:
    """Blobs, stripes and noise of different brightness, uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:size, 0:size] / size
    drawn = []
    for _ in range(count):
        cx, cy, radius, pitch, angle = rng.uniform([0.2, 0.2, 0.05, 2, 0], [0.8, 0.8, 0.4, 20, np.pi])
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
        stripes = 0.5 + 0.5 * np.sin(2 * np.pi * pitch * (x * np.cos(angle) + y * np.sin(angle)))
        mixed = rng.dirichlet(np.ones(3)) @ np.stack([blob, stripes, rng.random((size, size))]).reshape(3, -1)
        grey = 255 * rng.uniform(0.3, 1) * mixed.reshape(size, size)
        drawn.append(np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8))
    return np.stack(drawn)


def enliven(model: keras.Model, batch: NDArray[np.uint8]) -> None:
    """Random biases and gains, statistics of these films in every batch normalisation, a head that tells them apart."""
    rng = np.random.default_rng(11)
    for variable in model.weights:
        leaf = variable.path.rsplit("/", 1)[1]
        if leaf in {"gamma", "beta", "bias"}:
            centre = 0.0 if leaf == "bias" else 1.0  # most units open: a closed one proves nothing
            variable.assign(rng.normal(centre, 0.2, variable.shape).astype(np.float32))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(batch, training=True)
    for layer in norms:
        layer.momentum = 0.99
    # A head that looks where the films differ most, as a trained one does: in any other direction rounding to bfloat16
    # is louder than the film.
    head = model.get_layer("maps")
    features = np.asarray(keras.Model(model.input, head.input)(batch, training=False)).mean(axis=(1, 2))
    centred = features - features.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:3].T
    kernel = directions @ rng.normal(size=(3, head.filters))
    kernel *= SPREAD / (centred @ kernel).std(axis=0)
    head.kernel.assign(kernel[np.newaxis, np.newaxis])
    head.bias.assign(-features.mean(axis=0) @ kernel)


def draw_bundle(folder: Path, size: int, build: Build) -> Bundle:
    """A bundle of `build(outputs)` at this input size, weights stored as float16."""
    folder.mkdir(parents=True)
    golden: dict[str, Any] = {"inputs": films(size)}
    for name, outputs in zip(MODELS, (1, len(LABELS)), strict=True):
        keras.utils.set_random_seed(outputs)
        model = build(outputs)
        enliven(model, golden["inputs"])
        stored = {v.path: np.asarray(v).astype(np.float16) for v in model.weights}
        for variable in model.weights:
            variable.assign(stored[variable.path].astype(np.float32))
        golden[{"binary": "binary", "multilabel": "findings"}[name]] = np.asarray(model(golden["inputs"])["logits"])
        (folder / f"{name}.json").write_text(model.to_json())
        np.savez(folder / f"{name}.npz", **stored)
    golden["binary"] = golden["binary"][:, 0]
    np.savez(folder / "golden.npz", **golden)
    outputs_of = ("binary", *LABELS)
    card = ModelCard(
        name=folder.name,
        version="1",
        architecture="drawn",
        input_size=size,
        labels=LABELS,
        recipe_fingerprint="drawn",
        files={p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()},
        thresholds=dict.fromkeys(outputs_of, 0.5),
        calibration=dict.fromkeys(outputs_of, Calibration()),
        split_hash="0",
    )
    (folder / "card.json").write_text(card.to_json())
    return open_bundle(str(folder), [], lambda _: "drawn")
