"""A film on its way to the browser: all its bits, in about 60 % of its bytes; `static/film-pixels.js` unpacks it.

The body is a preview (where the film is large) and then the film, each in bands of `BAND` rows. Of a band each value
is sent as its difference from the one to its left (the first of a row from 0), modulo 2 ** bits; of 16 bits first all
the low bytes, then all the high bytes. Over this goes gzip with Huffman codes alone. Measured on two cores and a film
of 3000 x 2500, 12 bits with noise (15.0 MB): 8.9 MB after 0.3 s, where gzip level 1 of the plain values has 11.0 MB
after 1.1 s; on real films of 10 and 15 bits 3.0 of 7.5 MB and 4.5 of 7.2 MB, half of the time going into the decoder.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.original import Original

BAND: Final = 128  # rows
PREVIEW: Final = 640  # pixels of a preview's longer side, at most
_GZIP: Final = 31  # window bits: a gzip header around deflate


def description(film: Original) -> str:
    """What the browser must know of the body, and of how to show it: JSON in ASCII, fit for a header."""
    rows, columns = film.values.shape
    window = film.window
    return json.dumps(
        {
            "rows": rows,
            "columns": columns,
            "kind": film.values.dtype.name,
            "band": BAND,
            "preview": list(_preview_shape(film)),
            "slope": film.slope,
            "intercept": film.intercept,
            "center": window.center,
            "width": window.width,
            "function": window.function,
            "curve": list(window.curve),
            "inverse": film.inverse,
            "padding": film.padding,
            "spacing": film.spacing,
            "spacing_at_detector": film.spacing_at_detector,
            "aspect": film.aspect,
            "view": film.view[:32],
        }
    )


def body(film: Original) -> Iterator[bytes]:
    """Preview and film, before gzip."""
    if _every(film) > 1:
        yield from _bands(_reduced(film.values, _every(film)))
    yield from _bands(film.values)


def gzipped(parts: Iterable[bytes]) -> bytes:
    """A gzip member. Matches are not looked for: in differences of neighbours there are none."""
    coder = zlib.compressobj(1, zlib.DEFLATED, _GZIP, 8, zlib.Z_HUFFMAN_ONLY)
    return b"".join([*map(coder.compress, parts), coder.flush()])


def _every(film: Original) -> int:
    longest: int = max(film.values.shape)
    return math.ceil(longest / PREVIEW)


def _preview_shape(film: Original) -> tuple[int, int]:
    """(0, 0): the film is its own preview."""
    every = _every(film)
    rows, columns = film.values.shape
    return (rows // every, columns // every) if every > 1 else (0, 0)


def _reduced(values: NDArray[Any], every: int) -> NDArray[Any]:
    """The mean of every `every` x `every` pixels; what is left over at the far edges stays away."""
    rows, columns = values.shape[0] // every, values.shape[1] // every
    total = np.zeros((rows, columns), np.int32)
    for y in range(every):
        for x in range(every):
            total += values[y::every, x::every][:rows, :columns]
    return (total // every**2).astype(values.dtype)


def _bands(values: NDArray[Any]) -> Iterator[bytes]:
    patterns = values.view(f"u{values.itemsize}")
    for top in range(0, len(patterns), BAND):
        rows = patterns[top : top + BAND]
        steps = rows.copy()
        steps[:, 1:] -= rows[:, :-1]
        yield steps.astype(np.uint8).tobytes()  # its low bytes
        if values.itemsize == 2:
            yield (steps >> 8).astype(np.uint8).tobytes()
