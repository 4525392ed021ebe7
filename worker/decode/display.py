"""What a radiologist would see: modality LUT, VOI LUT, polarity, in the standard's order.

PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (Photometric Interpretation), C.7.5.1.1.2 (padding).
All steps are functions of the stored value alone, so they are composed into one table over every pixel cell that
Bits Allocated can hold, and the film is one look-up. Overlays are ignored: bits above High Bit are masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from schemas.image import GrayImage
from worker.decode.header import Source, integer, items, numbers, raw, text
from worker.decode.pixels import PixelFormat, StoredPixels

Values: TypeAlias = NDArray[np.float64]

_CHUNK: Final = 1 << 17  # pixels; the look-up's 64-bit indices then stay in the cache
_SAMPLE: Final = 1 << 20  # pixels looked at for the range of a film without VOI LUT
_TAIL: Final = 0.001  # of the pixels, left out at either end of that range: markers and dead detector cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Lut:
    """A look-up table (PS3.3 C.11.1.1): `data[0]` is for inputs up to `first`, the last entry for all beyond."""

    first: int
    data: Values
    full: float  # what the largest possible output is

    def __call__(self, x: Values) -> Values:
        at = np.clip(np.floor(x + 0.5) - self.first, 0, len(self.data) - 1)
        y: Values = self.data[at.astype(np.intp)]
        return y


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Window Center and Width with their VOI LUT Function (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    center: float
    width: float
    function: str = "LINEAR"

    def __call__(self, x: Values) -> Values:
        """Output in [0, 1]."""
        c, w = self.center, self.width
        if self.function == "SIGMOID":
            y: Values = 1 / (1 + np.exp(np.clip(-4 * (x - c) / w, -700, 700)))
            return y
        if self.function == "LINEAR":
            c, w = c - 0.5, w - 1
        if w == 0:
            return (x > c).astype(np.float64)
        return np.clip((x - c) / w + 0.5, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """The header's instructions, in the order in which they are obeyed."""

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None  # in place of slope and intercept
    voi: Lut | Window | None = None  # None: from the darkest to the brightest pixel
    inverse: bool = False  # low values are bright
    padding: tuple[int, int] | None = None  # stored values, both ends included; shown black


def rendering(source: Source) -> Rendering:
    """The header's instructions; whatever is malformed counts as absent."""
    ds, little = source.dataset, source.little_endian
    slope, intercept = numbers(ds, "RescaleSlope")[:1], numbers(ds, "RescaleIntercept")[:1]
    padding, limit = _signed(ds, "PixelPaddingValue"), _signed(ds, "PixelPaddingRangeLimit")
    return Rendering(
        slope=slope[0] if slope and slope[0] else 1.0,
        intercept=intercept[0] if intercept else 0.0,
        modality_lut=next((lut for i in items(ds, "ModalityLUTSequence") if (lut := _lut(i, little))), None),
        voi=next((lut for i in items(ds, "VOILUTSequence") if (lut := _lut(i, little))), None) or _window(ds),
        # DX pairs MONOCHROME1 with INVERSE (PS3.3 C.8.11.3.1.2), one inversion; either alone is obeyed.
        inverse=text(ds, "PhotometricInterpretation") == "MONOCHROME1" or text(ds, "PresentationLUTShape") == "INVERSE",
        padding=None if padding is None else _ordered(padding, padding if limit is None else limit),
    )


def _ordered(a: int, b: int) -> tuple[int, int]:
    return min(a, b), max(a, b)


def _signed(ds: Dataset, keyword: str) -> int | None:
    """US or SS by Pixel Representation (PS3.5 6.2); senders mix the two up, so the bits decide."""
    value = integer(ds, keyword)
    if value is not None and value > 0x7FFF and integer(ds, "PixelRepresentation") == 1:
        return value - 0x10000
    return value


def _window(ds: Dataset) -> Window | None:
    function = text(ds, "VOILUTFunction").upper() or "LINEAR"
    least = 1.0 if function == "LINEAR" else math.ulp(0.0)  # PS3.3 C.11.2.1.2.1: Width shall be at least 1
    pairs = zip(numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth"), strict=False)
    return next((Window(center=c, width=w, function=function) for c, w in pairs if w >= least), None)


def _lut(item: Dataset, little_endian: bool) -> Lut | None:
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3:
        return None
    count, first, bits = (int(v) for v in descriptor)
    count = count % 0x10000 or 0x10000  # 0 stands for 65536 (PS3.3 C.11.1.1.1); SS makes large counts negative
    data = _entries(raw(item, "LUTData"), count, bits, little_endian)
    if data is None:
        return None
    largest = float(data.max())
    full = float(2 ** min(max(bits, 1), 16) - 1)
    if largest <= full / 2:  # "16 bits" of which 12 are used: the entries say better how deep they are
        full = float(2 ** max(1, int(largest).bit_length()) - 1)
    return Lut(first=first, data=data, full=full)


def _entries(value: Any, count: int, bits: int, little_endian: bool) -> Values | None:
    """LUT Data as US values or as OW bytes; entries of 8 bits may be packed two to a word (PS3.3 C.11.1.1.1)."""
    if isinstance(value, bytes):
        packed = bits <= 8 and len(value) in (count, count + count % 2)
        data = np.frombuffer(value[: len(value) // 2 * 2], "u1" if packed else "<u2" if little_endian else ">u2")
    else:
        try:
            data = np.atleast_1d(np.asarray(value, dtype=np.int64)) & 0xFFFF
        except (TypeError, ValueError, OverflowError):
            return None
    return data[:count].astype(np.float64) if data.ndim == 1 and len(data) >= count else None


def to_display(stored: StoredPixels, form: PixelFormat, how: Rendering) -> GrayImage:
    """What a radiologist would see.

    Parameters
    ----------
    stored:
        uint8 or uint16 (Rows, Columns), either byte order: pixel cells with whatever their unused bits hold.
    form:
        Which of the bits count, and whether they are signed.
    how:
        The header's instructions.

    Returns
    -------
        uint8 (Rows, Columns); 0 = black, 255 = white, whatever the Photometric Interpretation. Padding is black.
    """
    return looked_up(lookup_table(stored, form, how), stored)


def looked_up(table: NDArray[Any], stored: StoredPixels) -> NDArray[Any]:
    """`table[stored]`, (Rows, Columns) of the table's type; `table` has an entry for every cell of Bits Allocated."""
    if stored.dtype == np.dtype(">u2"):
        stored, table = stored.view("<u2"), table.reshape(256, 256).T.ravel()  # swap the table, not the film
    found = np.empty(stored.shape, table.dtype)
    flat: NDArray[Any] = np.ascontiguousarray(stored).reshape(-1)
    out = found.reshape(-1)
    for at in range(0, flat.size, _CHUNK):
        # "clip" spares numpy a buffer; every cell is a valid index
        np.take(table, flat[at : at + _CHUNK], out=out[at : at + _CHUNK], mode="clip")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What pixel cells stand for. A pattern is the Bits Stored of a cell that count."""

    pattern_of: NDArray[np.intp]  # cell -> pattern
    values: Values  # pattern -> stored value
    x: Values  # pattern -> output of the Modality LUT
    padded: NDArray[np.bool_]  # pattern -> whether it is padding


def meaning(form: PixelFormat, how: Rendering) -> Meaning:
    """What every cell that Bits Allocated can hold stands for."""
    patterns = np.arange(1 << form.bits_stored, dtype=np.intp)
    cells = np.arange(1 << form.bits_allocated, dtype=np.intp)
    negative = (patterns >> (form.bits_stored - 1)) << form.bits_stored if form.signed else 0
    values: Values = (patterns - negative).astype(np.float64)
    padded = np.zeros(len(patterns), bool)
    if how.padding is not None:
        padded = (values >= how.padding[0]) & (values <= how.padding[1])
    return Meaning(
        pattern_of=(cells >> (form.high_bit + 1 - form.bits_stored)) & (len(patterns) - 1),
        values=values,
        x=how.modality_lut(values) if how.modality_lut else values * how.slope + how.intercept,
        padded=padded,
    )


def lookup_table(stored: StoredPixels, form: PixelFormat, how: Rendering) -> NDArray[np.uint8]:
    """Pixel cell -> shown grey, uint8 (2 ** Bits Allocated,)."""
    what = meaning(form, how)
    voi = how.voi or full_range(stored, form, what)
    y: Values = np.clip(voi(what.x) / voi.full, 0, 1) if isinstance(voi, Lut) else voi(what.x)
    shown = np.floor(255 * (1 - y if how.inverse else y) + 0.5).astype(np.uint8)
    shown[what.padded] = 0
    table: NDArray[np.uint8] = shown[what.pattern_of]
    return table


def full_range(stored: StoredPixels, form: PixelFormat, what: Meaning) -> Window:
    """No VOI LUT: the range of the film's own values, padding and the outermost thousandths aside.

    Eight bits are shown as they are, for they have been windowed before (PS3.3 C.11.2: identity).
    """
    if form.bits_stored <= 8:
        low, high = what.x.min(), what.x.max()
    else:
        step = max(1, math.isqrt(stored.size // _SAMPLE))
        sample = np.ascontiguousarray(stored[::step, ::step]).astype(stored.dtype.newbyteorder("="), copy=False)
        cells = np.bincount(sample.reshape(-1), minlength=len(what.pattern_of))
        counts = np.bincount(what.pattern_of, weights=cells, minlength=len(what.x)) * ~what.padded
        order = np.argsort(what.x, kind="stable")
        share = np.cumsum(counts[order]) / max(1.0, counts.sum())
        low, high = what.x[order[np.searchsorted(share, [_TAIL, 1 - _TAIL]).clip(0, len(order) - 1)]]
    width = max(float(high - low), math.ulp(0.0))
    return Window(center=float(low) + width / 2, width=width, function="LINEAR_EXACT")
