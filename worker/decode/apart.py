"""Decoding in a process apart: what dies there, dies alone. See `worker.decode.cell` for why."""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import threading
from typing import Final

from schemas.errors import Undecodable
from worker.decode import cell
from worker.decode.cell import REPLY, REQUEST, Shape

TIMEOUT: Final = 20.0  # seconds without a byte; the largest films decode in two or three
_KEPT: Final = 4  # idle processes that wait for the next film

_idle: list[_Cell] = []
_lock = threading.Lock()


class _Cell:
    """One decoder process, busy with one film at a time. It ends when this end of the socket closes."""

    def __init__(self) -> None:
        self._peer, theirs = socket.socketpair()
        self._peer.settimeout(TIMEOUT)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own file
                [sys.executable, "-EP", cell.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the decoders' chatter
                start_new_session=True,  # Ctrl-C is for us
            )

    def run(self, request: bytes, codestream: bytes, expected: int) -> bytearray | str:
        """The cells, or the name of the decoder's fault. Raises `OSError` or `EOFError` when the process died."""
        self._peer.sendall(request)
        self._peer.sendall(codestream)
        good, length = REPLY.unpack(cell.receive(self._peer, REPLY.size))
        if length != expected and (good or length > 256):
            return f"{length} bytes of {expected}"
        data = cell.receive(self._peer, length)
        return data if good else data.decode("ascii", "replace")

    def close(self) -> None:
        self._peer.close()
        self._process.kill()
        self._process.wait()


def decode_apart(codestream: bytes, transfer_syntax: str, shape: Shape) -> bytearray:
    """Pixel cells of one frame, little-endian, rows x columns x samples x bits allocated / 8 bytes.

    Raises
    ------
    Undecodable
        The decoder refused, gave another number of bytes, took too long, or died twice.
    """
    expected = shape.rows * shape.columns * shape.samples * shape.bits_allocated // 8
    request = REQUEST.pack(
        transfer_syntax.encode("ascii"),
        *(shape.rows, shape.columns, shape.samples, shape.bits_allocated, shape.bits_stored),
        len(codestream),
    )
    for fresh in (False, True):  # an idle process may have been killed meanwhile; a fresh one dies of this film
        decoder = _take(fresh)
        try:
            result = decoder.run(request, codestream, expected)
        except TimeoutError as error:
            decoder.close()
            raise Undecodable(f"decoder silent for {TIMEOUT:.0f} s") from error
        except (OSError, EOFError):
            decoder.close()
            continue
        if isinstance(result, bytearray):
            _give_back(decoder)
            return result
        # It may be in the middle of a reply that is not wanted, or have leaked what it could not free.
        decoder.close()
        raise Undecodable(f"decoder failed ({result})")
    raise Undecodable("decoder died")


def _take(fresh: bool) -> _Cell:
    with _lock:
        if _idle and not fresh:
            return _idle.pop()
    return _Cell()


def _give_back(decoder: _Cell) -> None:
    with _lock:
        if len(_idle) < _KEPT:
            _idle.append(decoder)
            return
    decoder.close()


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()
