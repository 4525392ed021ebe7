"""The weights that training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from training import bundles, network, torch_checkpoint
from training.network import Weights
from training.targets import Columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Every weight of the network by its path; None: random ones, as `fit` makes them."""

    weights: Weights | None
    scaling: str = ""  # a name of `network.SCALINGS`; empty: the backbone's own
    words: tuple[str, ...]  # for the card
    bundle: bundles.Bundle | None = None  # where they come from, if from one


def start_of(text: str, backbone: str, columns: Columns, *, seed: int, stores: Sequence[Path] = ()) -> Start:
    """What `[model] start` names, made fit for the network that is to be trained.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is of another network, or cannot be downloaded.
    BundleInvalid
        No such bundle, or it is damaged.
    """
    kind, _, source = text.partition(":")
    if kind == "random":
        return Start(weights=None, words=("random weights",))
    keras.utils.set_random_seed(seed)
    if kind == "imagenet":
        return Start(
            weights=network.weights_of(_imagenet(len(columns.names), backbone, source)),
            words=(f"ImageNet weights ({Path(source).name or 'Keras'})",),
        )
    own = network.weights_of(network.build(len(columns.names), 224, backbone))
    if kind == "bundle":
        return _bundle(source, own, backbone, columns, stores)
    if backbone != "densenet121":
        raise ConfigurationError(f'model.start: {source} holds a DenseNet121; set [model] backbone = "densenet121"')
    labels = columns.members if columns.task == "multilabel" else ()
    start = torch_checkpoint.start_from(Path(source), own, labels)
    return Start(weights=start.weights, scaling=start.scaling, words=(Path(source).name, *start.notes))


def _imagenet(outputs: int, backbone: str, source: str) -> keras.Model:
    try:
        return network.build(outputs, 224, backbone, imagenet=source or "imagenet")
    except Exception as error:
        raise ConfigurationError(
            f"model.start: ImageNet weights of {backbone} cannot be had from {source or 'the network'} ({error}); "
            'where there is no network, fetch the file that Keras names elsewhere: start = "imagenet:FILE" (no top)'
        ) from error


def _bundle(source: str, own: Weights, backbone: str, columns: Columns, stores: Sequence[Path]) -> Start:
    bundle = bundles.find(source, stores)
    if bundle.card.architecture != backbone:
        raise ConfigurationError(f"model.start: {bundle.folder} is a {bundle.card.architecture}, not a {backbone}")
    weights = dict(bundle.weights(columns.task))
    if columns.task == "multilabel":
        weights = dict(network.columns(weights, [LABELS.index(labels[0]) for labels in columns.members]))
    return _started(bundle, weights, own, columns, f"bundle {bundle.card.name} {bundle.card.version}")


def of_kept(bundle: bundles.Bundle, backbone: str, columns: Columns, *, seed: int) -> Start:
    """The binary network as the kept multilabel one, its "No Finding" turned round; auxiliary outputs are random."""
    keras.utils.set_random_seed(seed)
    own = network.weights_of(network.build(len(columns.names), 224, backbone))
    weights = dict(network.columns(bundle.weights("multilabel"), [LABELS.index(Label.NO_FINDING)]))
    weights |= {path: -weights[path] for path in ("maps/kernel", "maps/bias")}
    words = f"the multilabel model of bundle {bundle.card.name} {bundle.card.version}"
    return _started(bundle, weights, own, columns, words)


def _started(
    bundle: bundles.Bundle, weights: dict[str, NDArray[np.floating[Any]]], own: Weights, columns: Columns, words: str
) -> Start:
    """Auxiliary outputs are none of the bundle's: they stay random, behind its own."""
    for path in ("maps/kernel", "maps/bias"):
        weights[path] = np.concatenate([weights[path], own[path][..., columns.main :]], axis=-1)
    scaling = str(bundle.card.training.get("scaling", ""))
    return Start(weights=weights, scaling=scaling, words=(words,), bundle=bundle)
