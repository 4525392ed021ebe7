"""Networks whose class activation maps are exact and come with the same forward pass.

The backbone is Keras' own: DenseNet121 (Huang et al., CVPR 2017) by default, four others for comparison. On top of each
global average pooling and one linear layer (Zhou et al., CVPR 2016). Plain Keras layers only, so that the functional
config alone describes the graph, on every backend and in OpenVINO.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

Weights: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the first convolution sees of a uint8 pixel: scale * pixel + offset, for each channel."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


# What each backbone's published weights expect (`preprocess_input` of its module in keras.applications), and "xrv" for
# those of TorchXRayVision. VGG16's means are in the order blue, green, red: films are grey, so only the means move.
SCALINGS: Final[Mapping[str, Scaling]] = {
    "densenet121": Scaling(
        tuple(1.0 / (255.0 * std) for std in IMAGENET_STD),  # type: ignore[arg-type]
        tuple(-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),  # type: ignore[arg-type]
    ),
    "vgg16": Scaling((1.0, 1.0, 1.0), (-103.939, -116.779, -123.68)),
    "inception_resnet_v2": Scaling((1 / 127.5,) * 3, (-1.0,) * 3),
    "mobilenet": Scaling((1 / 127.5,) * 3, (-1.0,) * 3),
    "xception": Scaling((1 / 127.5,) * 3, (-1.0,) * 3),
    "xrv": Scaling((2048.0 / 255.0,) * 3, (-1024.0,) * 3),
}
_CONSTRUCTORS: Final[Mapping[str, str]] = {
    "densenet121": "DenseNet121",
    "vgg16": "VGG16",
    "inception_resnet_v2": "InceptionResNetV2",
    "mobilenet": "MobileNet",
    "xception": "Xception",
}


def build(
    outputs: int, size: int = 224, backbone: str = "densenet121", *, scaling: str = "", imagenet: str | None = None
) -> keras.Model:
    """The model with random weights, or with ImageNet's in its backbone.

    Pooling and a linear layer commute: the dense layer is a 1 x 1 convolution on the last features, which gives the
    maps, and their mean is the logit. No activation at the end: probabilities are the calibration's matter.

    Parameters
    ----------
    outputs:
        K, 1 for the binary model and 15 for the labels.
    size:
        Side of the square input, pixels. Weights do not depend on it.
    backbone:
        A name of `description.Backbone`.
    scaling:
        A name of `SCALINGS`; empty: what the backbone's ImageNet weights expect.
    imagenet:
        None: random weights. "imagenet": Keras' own, which it downloads. Else a local file of them, without the top.

    Returns
    -------
        uint8 (N, size, size, 3) -> {"logits": float32 (N, K), "maps": float32 (N, h, w, K)}; DenseNet121 has
        h = w = size // 32.

    Raises
    ------
    ValueError
        The file of ImageNet weights is that of another network.
    """
    film = keras.Input((size, size, 3), dtype="uint8", name="film")
    how = SCALINGS[scaling or backbone]
    scaled = keras.layers.Rescaling(list(how.scale), list(how.offset), name="imagenet")(film)
    constructor = getattr(keras.applications, _CONSTRUCTORS[backbone])
    features = constructor(include_top=False, weights=imagenet, input_tensor=scaled)
    maps = keras.layers.Conv2D(outputs, 1, dtype="float32", name="maps")(features.output)
    logits = keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(maps)
    return _canonical(keras.Model(film, {"logits": logits, "maps": maps}, name=backbone))


def weights_of(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Every weight by its Keras variable path, e.g. "conv1_conv/kernel"."""
    return {v.path: keras.ops.convert_to_numpy(v).astype(np.float32) for v in model.weights}


def load_weights(model: keras.Model, weights: Weights) -> None:
    """Assign by path.

    Raises
    ------
    KeyError
        A weight of the model is missing.
    ValueError
        A weight has another shape.
    """
    for variable in model.weights:
        variable.assign(weights[variable.path].astype(np.float32))


def columns(weights: Weights, which: list[int]) -> dict[str, NDArray[np.floating[Any]]]:
    """The same weights with these columns of the last layer, in this order; one may stand there twice."""
    kernel, bias = weights["maps/kernel"], weights["maps/bias"]
    return {**weights, "maps/kernel": kernel[..., which], "maps/bias": bias[which]}


def _canonical(model: keras.Model) -> keras.Model:
    """The same model under names that do not depend on what the process has built before.

    Keras numbers the layers that have no name of their own ("conv2d_203") by how many it has made so far, and the paths
    of their weights with them.
    """
    config = model.get_config()
    made: Counter[str] = Counter()
    names: dict[str, str] = {}
    for layer in config["layers"]:
        stem = _snake_case(layer["class_name"])
        if re.fullmatch(rf"{stem}(_\d+)?", layer["name"]):
            made[stem] += 1
            names[layer["name"]] = f"{stem}_{made[stem]}"
    if not names:
        return model
    same = keras.Model.from_config(_renamed(config, names))
    for old, new in zip(model.weights, same.weights, strict=True):
        new.assign(old)
    return same


def _snake_case(name: str) -> str:
    """As Keras makes it: "ZeroPadding2D" is "zero_padding2d"."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, dict):
        return {
            key: names.get(value, value) if key == "name" and isinstance(value, str) else _renamed(value, names)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        # [layer, call, output]: how a functional config refers to a tensor
        if len(config) == 3 and isinstance(config[0], str) and all(isinstance(i, int) for i in config[1:]):
            return [names.get(config[0], config[0]), *config[1:]]
        return type(config)(_renamed(item, names) for item in config)
    return config
