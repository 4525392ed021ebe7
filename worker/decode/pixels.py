"""Stored pixel values out of Pixel Data, native or encapsulated.

Every size is checked against the header, and the header against `MAX_PIXELS`, before anything is allocated.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragments
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from schemas.errors import NotAnalysable, Undecodable
from schemas.identity import is_uid
from schemas.not_analysed import NotAnalysed
from worker.decode.apart import decode_apart
from worker.decode.cell import CODECS, Shape
from worker.decode.header import Source, integer, text

MAX_PIXELS: Final = 1 << 26  # 8192 x 8192; the largest chest detectors have 4300 x 4300
UNDEFINED: Final = 0xFFFFFFFF
_NATIVE: Final[tuple[str, ...]] = (
    "",  # no File Meta Information
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_KEEP_YBR: Final[tuple[str, ...]] = (  # the others decode to RGB
    *(JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, RLELossless),
)
GREY_TOLERANCE: Final = 24  # grey levels between channels; lossy compression and resampling leave this much
GREY_SHARE: Final = 0.98  # of the pixels; the rest may be coloured annotations

StoredPixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """The Image Pixel Module (PS3.3 C.7.6.3) as far as it matters, made consistent."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int  # 8 or 16
    bits_stored: int
    high_bit: int
    signed: bool
    by_plane: bool  # Planar Configuration 1


def pixel_format(source: Source) -> PixelFormat:
    """Image Pixel Module of `source`.

    Raises
    ------
    Undecodable
        Rows, Columns, Bits Allocated or Samples per Pixel are missing or beyond what a film has.
    """
    ds = source.dataset
    rows, columns = integer(ds, "Rows") or 0, integer(ds, "Columns") or 0
    if rows <= 0 or columns <= 0 or rows * columns > MAX_PIXELS:
        raise Undecodable(f"Rows x Columns {rows} x {columns}")
    allocated = integer(ds, "BitsAllocated") or 0
    if allocated not in (8, 16):
        raise Undecodable(f"Bits Allocated {allocated}")
    samples = integer(ds, "SamplesPerPixel") or 1
    if samples not in (1, 3):
        raise Undecodable(f"Samples per Pixel {samples}")
    stored = integer(ds, "BitsStored") or allocated
    if not 1 < stored <= allocated:
        stored = allocated
    high_bit = integer(ds, "HighBit")
    if high_bit is None or not stored <= high_bit + 1 <= allocated:
        high_bit = stored - 1
    return PixelFormat(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=text(ds, "PhotometricInterpretation").upper(),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=integer(ds, "PixelRepresentation") == 1,
        by_plane=integer(ds, "PlanarConfiguration") == 1,
    )


def stored_pixels(source: Source) -> tuple[StoredPixels, PixelFormat]:
    """Pixel cells as they are, bits above High Bit included, and the format that reads them.

    Returns
    -------
        uint8 or uint16 (Rows, Columns), perhaps big-endian, perhaps a view of the file; grey in three samples
        comes back as one.

    Raises
    ------
    Undecodable
        No decoder for the Transfer Syntax, or the pixels are not what the header says.
    NotAnalysable
        COLOUR: the three samples differ.
    """
    form = pixel_format(source)
    if form.samples == 3 and form.bits_allocated != 8:
        raise NotAnalysable(NotAnalysed.COLOUR, "three samples of 16 bits")
    if source.length == UNDEFINED:
        return _encapsulated(source, form)
    if source.transfer_syntax not in _NATIVE:
        raise Undecodable(f"Pixel Data is not encapsulated, Transfer Syntax {_named(source.transfer_syntax)}")
    return _native(source, form)


def _named(transfer_syntax: str) -> str:
    return transfer_syntax if is_uid(transfer_syntax) else "malformed"


def _native(source: Source, form: PixelFormat) -> tuple[StoredPixels, PixelFormat]:
    count = form.rows * form.columns * form.samples
    size = count * form.bits_allocated // 8
    view = source.stream.getbuffer() if isinstance(source.stream, io.BytesIO) else memoryview(source.stream)
    if source.length < size or len(view) - source.offset < size:
        raise Undecodable(f"Pixel Data has {min(source.length, len(view) - source.offset)} bytes of {size}")
    kind = "u1" if form.bits_allocated == 8 else "<u2" if source.little_endian else ">u2"
    if kind == "u1" and source.transfer_syntax == ExplicitVRBigEndian:
        # PS3.5 8.2, A.3: OW swaps the bytes of each pair of 8-bit cells, OB does not; Pixel Data is OW or OB.
        view = memoryview(_unswapped(view, source, size))
        cells = np.frombuffer(view, dtype=np.uint8, count=count)
    else:
        cells = np.frombuffer(view, dtype=kind, count=count, offset=source.offset)
    return _one_sample(cells, form)


def _unswapped(view: memoryview, source: Source, size: int) -> bytes:
    cells = bytes(view[source.offset : source.offset + size + size % 2])
    is_ow = bytes(view[source.offset - 8 : source.offset - 6]) == b"OW"
    return np.frombuffer(cells, dtype=np.uint16).byteswap().tobytes() if is_ow and len(cells) % 2 == 0 else cells


def _encapsulated(source: Source, form: PixelFormat) -> tuple[StoredPixels, PixelFormat]:
    source.stream.seek(source.offset)
    try:
        fragments = list(generate_fragments(source.stream.read()))
    except Exception as error:  # broken items and lengths: ValueError, struct.error, …
        raise Undecodable(f"broken encapsulation ({type(error).__name__})") from error
    # The first item is the Basic Offset Table (PS3.5 A.4); one frame needs none, and senders get it wrong.
    codestream = b"".join(fragments[1:])
    return decode(codestream, source.transfer_syntax, form)


def decode(codestream: bytes, transfer_syntax: str, form: PixelFormat) -> tuple[StoredPixels, PixelFormat]:
    """One frame's code stream to pixel cells.

    Raises
    ------
    Undecodable
        No decoder, a broken code stream, or one of another size than the header says.
    """
    if transfer_syntax not in (JPEGBaseline8Bit, *CODECS):
        raise Undecodable(f"no decoder for Transfer Syntax {_named(transfer_syntax)}")
    if transfer_syntax != RLELossless:
        form = _agreed(codestream, form)
    if transfer_syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and form.bits_allocated == 8:
        try:
            cells: bytes | bytearray = _baseline(codestream, form)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say "corrupt"
            raise Undecodable(f"JPEG is corrupt ({type(error).__name__})") from error
    else:
        shape = Shape(
            rows=form.rows,
            columns=form.columns,
            samples=form.samples,
            bits_allocated=form.bits_allocated,
            bits_stored=form.bits_stored,
        )
        cells = decode_apart(codestream, transfer_syntax, shape)
    if transfer_syntax not in _KEEP_YBR:
        form = replace(form, photometric="RGB" if form.samples == 3 else form.photometric)
    expected = form.rows * form.columns * form.samples * form.bits_allocated // 8
    if len(cells) < expected:
        raise Undecodable(f"{len(cells)} bytes decoded of {expected}")
    dtype = np.uint8 if form.bits_allocated == 8 else np.uint16
    return _one_sample(np.frombuffer(cells, dtype=dtype, count=expected // dtype().itemsize), form)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What a code stream says of itself."""

    rows: int
    columns: int
    components: int
    precision: int


def _agreed(codestream: bytes, form: PixelFormat) -> PixelFormat:
    """The format of the decoded cells: size must agree; depth and samples are the code stream's (PS3.5 8.2)."""
    frame = read_frame(codestream)
    if (frame.rows, frame.columns) != (form.rows, form.columns):
        raise Undecodable(f"code stream is {frame.rows} x {frame.columns}, header {form.rows} x {form.columns}")
    if frame.components not in (1, 3) or not 1 < frame.precision <= 16:
        raise Undecodable(f"code stream has {frame.components} components of {frame.precision} bits")
    if frame.components == 3 and frame.precision > 8:
        raise NotAnalysable(NotAnalysed.COLOUR, "three components of more than 8 bits")
    allocated = 8 if frame.precision <= 8 else 16
    # A full container says nothing about depth (unused bits are coded too), nor does a stream about the sign.
    headers = form.signed or frame.precision == allocated
    stored = min(form.bits_stored, allocated) if headers else frame.precision
    return replace(
        form,
        samples=frame.components,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1,
        by_plane=False,
    )


def read_frame(codestream: bytes) -> Frame:
    """Size of a JPEG, JPEG-LS (ISO 10918-1, 14495-1: SOF) or JPEG 2000 (ISO 15444-1: SIZ) code stream.

    Raises
    ------
    Undecodable
        No frame header.
    """
    try:
        if codestream[:2] == b"\xff\xd8":
            return _start_of_frame(codestream)
        start = codestream.find(b"\xff\x4f\xff\x51", 0, 4096)  # behind boxes when somebody stored a whole JP2 file
        if start >= 0:
            x1, y1, x0, y0 = struct.unpack_from(">4I", codestream, start + 8)
            components, precision = struct.unpack_from(">HB", codestream, start + 40)
            return Frame(rows=y1 - y0, columns=x1 - x0, components=components, precision=(precision & 0x7F) + 1)
    except struct.error as error:
        raise Undecodable("code stream ends in its header") from error
    raise Undecodable("not a code stream")


def _start_of_frame(codestream: bytes) -> Frame:
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", codestream, at)
        if marker == 0xFFFF:  # fill byte
            at += 1
        elif marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
            precision, rows, columns, components = struct.unpack_from(">BHHB", codestream, at + 4)
            return Frame(rows=rows, columns=columns, components=components, precision=precision)
        elif marker < 0xFFC0 or marker in (0xFFD8, 0xFFD9, 0xFFDA):
            raise Undecodable("no frame header in the code stream")
        else:
            at += 2 + length


def _baseline(codestream: bytes, form: PixelFormat) -> bytes:
    """JPEG of 8 bits by libjpeg-turbo, in this process: hardened, quick, and without the interpreter's lock."""
    from PIL import Image

    with Image.open(io.BytesIO(codestream), formats=("JPEG",)) as image:
        return image.convert("RGB" if form.samples == 3 else "L").tobytes()


def _one_sample(cells: NDArray[Any], form: PixelFormat) -> tuple[StoredPixels, PixelFormat]:
    if form.samples == 1:
        return cells.reshape(form.rows, form.columns), form
    shape = (3, form.rows, form.columns) if form.by_plane else (form.rows, form.columns, 3)
    planes = cells.reshape(shape) if form.by_plane else cells.reshape(shape).transpose(2, 0, 1)
    raise_if_coloured(planes, form.photometric)
    # Green of RGB or Y of YBR
    return planes[0 if form.photometric.startswith("YBR") else 1], form


def raise_if_coloured(planes: NDArray[np.uint8], photometric: str) -> None:
    """NotAnalysable(COLOUR) unless the three planes (3, Rows, Columns) show grey."""
    sample = planes[:, :: max(1, planes.shape[1] // 512), :: max(1, planes.shape[2] // 512)].astype(np.int16)
    if photometric.startswith("YBR"):
        sample = np.stack([sample[1], sample[2], np.full_like(sample[1], 128)])  # chroma, against its zero
    spread = sample.max(0) - sample.min(0)
    if np.mean(spread <= GREY_TOLERANCE) < GREY_SHARE:
        raise NotAnalysable(NotAnalysed.COLOUR)
