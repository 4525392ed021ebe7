"""Every film decoded once: a memory-mapped array that training reads at the speed of memory.

Named by the recipe's fingerprint and by the films, so that another recipe or another set of films is another cache.
An interrupted build goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import Progress

from schemas.errors import Undecodable
from training.films import square
from training.nih_index import NihFilm
from worker.tensor.recipe import fingerprint

_TODO, _DONE, _UNREADABLE = 0, 1, 2
_CHUNK = 256  # films between two marks of progress on disk


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelCache:
    """Films in the order they were asked for."""

    pixels: NDArray[np.uint8]  # (N, size, size), read-only map; a film that could not be read is black
    readable: NDArray[np.bool_]  # (N,)


def pixel_cache(films: Sequence[NihFilm], folder: Path, size: int, progress: Progress) -> PixelCache:
    """Build what is missing of the cache in `folder` and map it."""
    folder.mkdir(parents=True, exist_ok=True)
    members = hashlib.sha256("".join(f"{f.name}:{f.path}\n" for f in films).encode()).hexdigest()[:12]
    stem = f"{fingerprint(size)}-{size}-{members}"
    pixels = _map(folder / f"{stem}.npy", (len(films), size, size))
    state = _map(folder / f"{stem}.state.npy", (len(films),))
    todo = np.flatnonzero(state == _TODO)
    task = progress.add_task(f"decode to {size} px", total=len(films), completed=len(films) - len(todo))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            marks = list(pool.map(lambda i: _fill(pixels, int(i), films[int(i)].path, size), chunk))
            pixels.flush()  # pixels first: a mark on disk promises that they are there
            state[chunk] = marks
            state.flush()
            progress.advance(task, len(chunk))
    pixels.flags.writeable = False
    return PixelCache(pixels=pixels, readable=np.asarray(state == _DONE))


def _fill(pixels: NDArray[np.uint8], i: int, path: Path, size: int) -> int:
    try:
        pixels[i] = square(path, size)
    except Undecodable:
        return _UNREADABLE
    return _DONE


def _map(path: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    if not path.exists():
        fresh = path.with_suffix(".new")
        open_memmap(fresh, mode="w+", dtype=np.uint8, shape=shape).flush()
        fresh.rename(path)
    return open_memmap(path, mode="r+")
