"""The compiled decoders, run in a process of their own (see `worker.decode.apart`).

They read hostile bytes in C and C++: one may throw where nothing catches, loop, or eat the memory; and while it
works it holds the interpreter's lock. Here that costs a process that nobody misses. This file is run as a script and
imports nothing of ours. Protocol, both ways: `HEAD` and then the bytes; the process ends when the peer hangs up.
"""

from __future__ import annotations

import resource
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Request: transfer syntax (64 bytes), rows, columns, samples, bits allocated, bits stored, length of the code stream.
REQUEST: Final = struct.Struct("!64sIIIIIQ")
# Reply: 1 and the length of the cells, or 0 and the length of the fault's name.
REPLY: Final = struct.Struct("!?Q")
MEMORY: Final = 3 << 30  # bytes of address space; a film of 8192 x 8192 takes about 1 GiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the decoded cells are to be."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int


def jpegls(codestream: bytes, _syntax: str, shape: Shape) -> bytes:
    """JPEG-LS by CharLS (BSD-3-Clause)."""
    import jpeg_ls  # type: ignore[import-untyped]
    import numpy as np

    cells, info = jpeg_ls.decode_pixel_data(codestream)
    if shape.samples == 3 and info["interleave_mode"] == 0:
        return np.frombuffer(cells, np.uint8).reshape(3, -1).T.tobytes()
    return bytes(cells)


def openjpeg(codestream: bytes, _syntax: str, _shape: Shape) -> bytes:
    """JPEG 2000 and HTJ2K by OpenJPEG (BSD-2-Clause)."""
    from openjpeg import decode_pixel_data  # type: ignore[attr-defined]

    return bytes(decode_pixel_data(codestream, version=2))


def gdcm(codestream: bytes, syntax: str, shape: Shape) -> bytes:
    """RLE, JPEG of 12 and 16 bits and lossless JPEG by GDCM (BSD-3-Clause)."""
    import gdcm as g

    fragment = g.Fragment()
    fragment.SetByteStringValue(codestream)
    fragments = g.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = g.DataElement(g.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = g.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape.columns, shape.rows, 1))
    image.SetDataElement(element)
    model = g.PhotometricInterpretation.RGB if shape.samples == 3 else g.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(g.PhotometricInterpretation(model))
    image.SetTransferSyntax(g.TransferSyntax(g.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(
        g.PixelFormat(shape.samples, shape.bits_allocated, shape.bits_stored, shape.bits_stored - 1, 0)
    )
    cells: str = image.GetBuffer()  # SWIG hands bytes out as text
    return cells.encode("utf-8", "surrogateescape")


CODECS: Final[dict[str, Callable[[bytes, str, Shape], bytes]]] = {
    "1.2.840.10008.1.2.4.51": gdcm,  # JPEG Extended 12 bits
    "1.2.840.10008.1.2.4.57": gdcm,  # JPEG Lossless, Process 14
    "1.2.840.10008.1.2.4.70": gdcm,  # JPEG Lossless, Process 14, Selection Value 1
    "1.2.840.10008.1.2.4.80": jpegls,
    "1.2.840.10008.1.2.4.81": jpegls,
    "1.2.840.10008.1.2.4.90": openjpeg,
    "1.2.840.10008.1.2.4.91": openjpeg,
    "1.2.840.10008.1.2.4.201": openjpeg,
    "1.2.840.10008.1.2.4.202": openjpeg,
    "1.2.840.10008.1.2.4.203": openjpeg,
    "1.2.840.10008.1.2.5": gdcm,  # RLE Lossless
}


def receive(peer: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes; `EOFError` when the peer hangs up before."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = peer.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data


def serve(peer: socket.socket) -> None:
    """Answer requests until the peer hangs up."""
    while True:
        try:
            name, rows, columns, samples, allocated, stored, length = REQUEST.unpack(receive(peer, REQUEST.size))
            codestream = bytes(receive(peer, length))
        except (EOFError, OSError):
            return
        syntax = name.rstrip(b"\0").decode("ascii")
        shape = Shape(rows=rows, columns=columns, samples=samples, bits_allocated=allocated, bits_stored=stored)
        try:
            cells, good = CODECS[syntax](codestream, syntax, shape), True
        except Exception as error:  # noqa: BLE001  every decoder has its own idea of what to raise
            cells, good = type(error).__name__.encode(), False
        peer.sendall(REPLY.pack(good, len(cells)))
        peer.sendall(cells)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a patient's film
    serve(socket.socket(fileno=int(sys.argv[1])))
