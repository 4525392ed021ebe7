"""DenseNet121 whose class activation maps are exact and come with the same forward pass.

Huang et al., CVPR 2017 (the network); Zhou et al., CVPR 2016 (the maps). Plain Keras layers only, so that the
functional config alone describes the graph, on every backend and in OpenVINO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def build(outputs: int, size: int = 224) -> keras.Model:
    """The model with random weights.

    Pooling and a linear layer commute: the dense layer is a 1 x 1 convolution on the last features, which gives the
    maps, and their mean is the logit. No activation at the end: probabilities are the calibration's matter.

    Parameters
    ----------
    outputs:
        K, 1 for the binary model and 15 for the labels.
    size:
        Side of the square input, pixels. Weights do not depend on it.

    Returns
    -------
        uint8 (N, size, size, 3) -> {"logits": float32 (N, K), "maps": float32 (N, size // 32, size // 32, K)}.
    """
    film = keras.Input((size, size, 3), dtype="uint8", name="film")
    scaled = keras.layers.Rescaling(
        scale=[1.0 / (255.0 * std) for std in IMAGENET_STD],
        offset=[-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        name="imagenet",
    )(film)
    backbone = keras.applications.DenseNet121(include_top=False, weights=None, input_tensor=scaled)
    # Keras numbers these two by how many models the process has built; the graph must not depend on that.
    for i, layer in enumerate(x for x in backbone.layers if isinstance(x, keras.layers.ZeroPadding2D)):
        layer.name = f"pad{i + 1}"
    maps = keras.layers.Conv2D(outputs, 1, dtype="float32", name="maps")(backbone.output)
    logits = keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(maps)
    return keras.Model(film, {"logits": logits, "maps": maps}, name="densenet121")


def weights_of(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Every weight by its Keras variable path, e.g. "conv1_conv/kernel"."""
    return {v.path: keras.ops.convert_to_numpy(v).astype(np.float32) for v in model.weights}


def load_weights(model: keras.Model, weights: Mapping[str, NDArray[np.floating[Any]]], *, head: bool = True) -> None:
    """Assign by path. `head=False` leaves the last layer alone, to start one model from the other's backbone.

    Raises
    ------
    KeyError
        A weight of the model is missing.
    ValueError
        A weight has another shape.
    """
    for variable in model.weights:
        if head or not variable.path.startswith("maps/"):
            variable.assign(weights[variable.path].astype(np.float32))
