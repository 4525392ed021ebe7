"""The one tensor recipe: what a model was trained on is what it is served.

Squash to a square (NIH squashed its films, so no letterbox), antialiased, grey in three channels. Polarity and
contrast are the decoder's matter and are not touched here; ImageNet scaling is inside the saved graph.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.image import GrayImage, Tensor

RECIPE: Final = "squash-bilinear-gap3-grey3/1"  # another recipe is another name
SIZE: Final = 224

# One film that is reduced in two steps, one that is squashed unevenly, one that is enlarged.
_GOLDEN_SHAPES: Final = ((1500, 1400), (301, 517), (96, 128))


def to_tensor(grey: GrayImage, size: int = SIZE) -> Tensor:
    """The model's input for one film.

    Parameters
    ----------
    grey:
        uint8 (Rows, Columns), 0 = black, any shape.
    size:
        Side of the square, pixels.

    Returns
    -------
        uint8 (size, size, 3), contiguous, all three channels equal.

    Raises
    ------
    ValueError
        Not two-dimensional, not uint8, or empty.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8 or grey.size == 0:
        raise ValueError(f"a grey film is uint8 (Rows, Columns), not {grey.dtype} {grey.shape}")
    # reducing_gap: integer box reduction to no less than three times the size, then the true filter;
    # within one or two grey levels of the filter alone and three times as quick on a 2500 x 2048 film.
    image = Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    square: GrayImage = np.asarray(image)
    return np.repeat(square[:, :, np.newaxis], 3, axis=2)


@cache
def fingerprint(size: int = SIZE) -> str:
    """16 hex digits that change with the recipe, the size, or the pixels that the installed Pillow makes."""
    digest = hashlib.sha256(f"{RECIPE} {size}\n".encode())
    for rows, columns in _GOLDEN_SHAPES:
        digest.update(to_tensor(golden_film(rows, columns), size).tobytes())
    return digest.hexdigest()[:16]


def golden_film(rows: int, columns: int) -> GrayImage:
    """A film of waves and edges, from integer arithmetic alone, so that it is the same everywhere for ever."""
    y = np.arange(rows, dtype=np.int32)[:, np.newaxis]
    x = np.arange(columns, dtype=np.int32)[np.newaxis, :]
    film: NDArray[np.int32] = ((x * x * 3 + y * y * 7) // (rows + columns) + (x // 37 + y // 53) * 29) % 256
    return film.astype(np.uint8)
