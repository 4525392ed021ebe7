"""Golden films: drawn chests, so that a bundle can show what its models must answer without a patient's film in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.tensor.recipe import to_tensor

_SIDE = 1024  # pixels, of the drawn film


def golden_films(size: int, count: int = 4) -> NDArray[np.uint8]:
    """uint8 (count, size, size, 3): trunk, lungs, heart, spine, ribs; every other one has a shadow."""
    return np.stack([to_tensor(_chest(i), size) for i in range(count)])


def _chest(i: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64) / _SIDE

    def oval(cx: float, cy: float, rx: float, ry: float, edge: float = 0.08) -> NDArray[np.float64]:
        inside = 1.0 - np.hypot((x - cx) / rx, (y - cy) / ry)
        soft: NDArray[np.float64] = np.clip(inside / edge, 0.0, 1.0)
        return soft

    film = 25.0 + 150.0 * oval(0.5, 0.6, 0.46 + 0.01 * i, 0.62)
    for cx in (0.30, 0.70):
        film -= 110.0 * oval(cx, 0.48, 0.155, 0.33 - 0.02 * i)
    film += 70.0 * oval(0.55, 0.62, 0.13 + 0.015 * i, 0.17)
    film += 45.0 * oval(0.5, 0.5, 0.045, 0.6)
    film += 10.0 * np.sin((y - 0.35 * (x - 0.5) ** 2) * 60.0) * (oval(0.5, 0.48, 0.38, 0.42) > 0.0)
    film += (i % 2) * 60.0 * oval(0.72, 0.7, 0.12, 0.10, edge=0.5)
    return film.clip(0.0, 255.0).astype(np.uint8)
