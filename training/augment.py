"""Small, label-preserving changes of a film, made while it is brought to the model's size.

NumPy and Pillow, so that every Keras backend sees the same films for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.tensor.recipe import to_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Each is drawn uniformly from [-x, x]; flip is a probability."""

    rotation: float = 8.0  # degrees
    shift: float = 0.05  # of the side
    zoom: float = 0.1
    contrast: float = 0.25  # of the distance from mid grey
    brightness: float = 20.0  # grey levels
    noise: float = 4.0  # largest standard deviation, grey levels
    flip: float = 0.5  # left and right: none of the 15 labels knows them apart
    flip_vertical: float = 0.0  # no chest stands on its head


# What a description may ask for. "reference": as the public student project that the report compares with had it.
AUGMENTATIONS: Final[Mapping[str, Augmentation]] = {
    "none": Augmentation(rotation=0, shift=0, zoom=0, contrast=0, brightness=0, noise=0, flip=0),
    "anatomical": Augmentation(),
    "reference": Augmentation(
        rotation=0, shift=0, zoom=0, contrast=0, brightness=0, noise=0, flip=0.5, flip_vertical=0.5
    ),
}


def plain(films: Iterable[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Films of any shapes -> uint8 (N, size, size, 3), by the recipe alone."""
    return np.stack([to_tensor(film, size) for film in films])


def augmented(films: NDArray[np.uint8], size: int, rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """uint8 (N, s, s) -> (N, size, size, 3), each film changed in its own way."""
    return np.stack([_one(film, size, rng, how) for film in films])


def _one(film: NDArray[np.uint8], size: int, rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    side = film.shape[0]
    angle = np.deg2rad(rng.uniform(-how.rotation, how.rotation))
    scale = 1.0 + rng.uniform(-how.zoom, how.zoom)
    mirror = -1.0 if rng.random() < how.flip else 1.0
    stand = -1.0 if how.flip_vertical and rng.random() < how.flip_vertical else 1.0
    # Pillow wants the map from output to input: turn and zoom about the middle, then shift.
    a, b = scale * np.cos(angle) * mirror, scale * np.sin(angle) * stand
    d, e = -scale * np.sin(angle) * mirror, scale * np.cos(angle) * stand
    x, y = (side / 2 + rng.uniform(-how.shift, how.shift, 2) * side).tolist()
    matrix = (a, b, x - (a + b) * side / 2, d, e, y - (d + e) * side / 2)
    moved = Image.fromarray(film).transform(film.shape, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    tensor = to_tensor(np.asarray(moved), size)
    grey = tensor[:, :, 0].astype(np.float32)
    gain = 1.0 + rng.uniform(-how.contrast, how.contrast)
    grey = (grey - 127.5) * gain + 127.5 + rng.uniform(-how.brightness, how.brightness)
    if how.noise:
        grey += rng.standard_normal(grey.shape, np.float32) * rng.uniform(0.0, how.noise)
    return np.repeat(grey.clip(0.0, 255.0).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
