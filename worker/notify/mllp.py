"""MLLP, the lower layer of HL7 v2 (HL7 v2.5.1 Implementation Support Guide, appendix C), on one blocking socket.

A message goes out between VT and FS CR; its answer comes back on the same connection in the same frame. One write and
one read in the caller's thread, under TLS where asked for, and every wait and every size is bounded.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from worker.notify.idle import IDLE_SECONDS, Idle
from worker.notify.network import cut_off, network_words, not_trusted

log = logging.getLogger("hilum.notify")

_START, _END, _LINE_ENDS = b"\x0b", b"\x1c", b"\r\n"
_LONGEST: Final = 64 * 1024  # bytes of an answer; acknowledgements have some 100
_HANG_UP_SECONDS: Final = 0.25  # in which a peer that turns a caller away does so
_QUICK_ACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux

T = TypeVar("T")


class MllpBroken(Exception):
    """The peer went away, or what it sent is no MLLP block."""


@dataclass(frozen=True, kw_only=True)
class MllpPeer:
    """Who is called; `tls` makes the call a secure one."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class MllpConnection:
    """Belongs to one thread, save `abort`, which any thread may call."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._socket = connection
        self._timeout = timeout
        self._received = bytearray()

    def shake_hands(self) -> None:
        """Begin TLS, where the socket is a secure one. Raises OSError, ssl.SSLError among it."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(self._timeout)
            self._socket.do_handshake()

    def exchange(self, message: bytes, understand: Callable[[bytes], T | None]) -> T:
        """Send `message`; of the blocks that come back the first that `understand` makes something of.

        Raises
        ------
        MllpBroken, OSError
            The connection is of no more use. OSError for what the network says; TimeoutError among it.
        """
        deadline = time.monotonic() + self._timeout
        self._socket.settimeout(self._timeout)
        self._socket.sendall(_START + message + _END + b"\r")
        while True:
            understood = understand(self._block(deadline))
            if understood is not None:
                return understood

    def is_quiet(self) -> bool:
        """Whether the peer is there and has said nothing since the last exchange."""
        try:
            self._socket.settimeout(0)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):  # the latter: a session ticket of TLS 1.3
                self._take(self._socket.recv(_LONGEST))
        except (MllpBroken, OSError):
            return False
        return not self._received.strip(_LINE_ENDS)

    def hear_out(self) -> None:
        """Give a peer that turns callers away the time to do so. Raises as `exchange`."""
        self._socket.settimeout(_HANG_UP_SECONDS)
        with contextlib.suppress(TimeoutError):
            self._take(self._socket.recv(_LONGEST))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def abort(self) -> None:
        """Hang up at once; who waits in `exchange` gets `MllpBroken` or OSError."""
        cut_off(self._socket)

    def _block(self, deadline: float) -> bytes:
        while True:
            del self._received[: len(self._received) - len(self._received.lstrip(_LINE_ENDS))]
            if self._received and not self._received.startswith(_START):
                raise MllpBroken("answers what is no MLLP block: is the port right, does it want TLS?")
            block, end, rest = self._received.partition(_END)
            if len(block) > _LONGEST:
                raise MllpBroken("sends far more than an acknowledgement: is the port right?")
            if end:
                self._received = rest
                return bytes(block[1:])
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._socket.settimeout(left)
        if _QUICK_ACK is not None:  # not lasting: asked for anew before every read
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        self._take(self._socket.recv(_LONGEST))

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            raise MllpBroken("closed the connection: look at its log")
        self._received += chunk


class MllpLine:
    """Keeps a connection open between messages that follow one another closely, and lets it go when none does.

    One thread asks; `close` may come from another.
    """

    def __init__(self, peer: MllpPeer, *, timeout: float, idle: float = IDLE_SECONDS) -> None:
        self.peer = peer
        self._timeout = timeout
        self._lock = threading.Lock()  # held while the connection is in use
        self._connection: MllpConnection | None = None
        self._idle = Idle(idle, self._lock, keeps=lambda: self._connection is not None, let_go=self._drop)
        self._closed = False

    def ask(self, message: bytes, understand: Callable[[bytes], T | None], sending: Callable[[], None]) -> T:
        """Send `message`, and what `understand` makes of an answer. Raises `TransientFailure` or `PermanentFailure`.

        `understand` gets every block that comes back, and says None to those that are no answer to `message`.
        `sending` is called each time that `message` is about to go out.
        """
        with self._lock:
            kept = self._connection if self._connection is not None and self._connection.is_quiet() else None
            try:
                if kept is not None:
                    try:
                        sending()
                        return kept.exchange(message, understand)
                    except (MllpBroken, ConnectionError, ssl.SSLEOFError):
                        # It died while nobody looked. The same control ID again is the same message.
                        log.info("connection-died peer=%s", self.peer)
                self._drop()
                opened = self._open()
                sending()
                return opened.exchange(message, understand)
            except (MllpBroken, OSError) as error:
                self._drop()
                raise self._failure(self._refusal(error)) from error
            except DeliveryError:
                self._drop()
                raise
            finally:
                self._idle.used()

    def check(self) -> str:
        """Connect and hang up; words for a person. Raises `DeliveryError`."""
        with self._lock:
            self._drop()
            try:
                self._open().hear_out()
            except (MllpBroken, OSError) as error:
                raise self._failure(error) from error
            finally:
                self._drop()
        return f"{self.peer} takes the call" + (" over TLS" if self.peer.tls else "")

    def close(self) -> None:
        """Let go of the peer for good, if need be in the middle of a message, which then fails for the time being."""
        self._closed = True
        busy = self._connection
        if not self._lock.acquire(blocking=False):
            if busy is not None:
                busy.abort()
            self._lock.acquire()
        self._idle.cancel()
        self._drop()
        self._lock.release()

    def _open(self) -> MllpConnection:
        if self._closed:
            raise TransientFailure(f"{self.peer}: the channel is closed")
        began = time.perf_counter()
        connected = socket.create_connection((self.peer.host, self.peer.port), self._timeout)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.peer.tls is not None:
                connected = self.peer.tls.wrap_socket(
                    connected, server_hostname=self.peer.host, do_handshake_on_connect=False
                )
        except BaseException:
            connected.close()
            raise
        self._connection = MllpConnection(connected, self._timeout)  # known from here on to `close`
        if self._closed:
            raise TransientFailure(f"{self.peer}: the channel is closed")
        self._connection.shake_hands()
        log.info("connected peer=%s ms=%.1f", self.peer, 1000 * (time.perf_counter() - began))
        return self._connection

    def _refusal(self, error: Exception) -> Exception:
        """Why the peer hung up. Under TLS 1.3 it says so while a message is on its way to it already, and the reset
        that this gives overtakes its words: it is called again, and heard out.
        """
        if self.peer.tls is None or not isinstance(error, (MllpBroken, ConnectionError, ssl.SSLEOFError)):
            return error
        try:
            self._open().hear_out()
        except (MllpBroken, OSError) as said:
            return said if isinstance(said, ssl.SSLError) else error
        finally:
            self._drop()
        return error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _failure(self, error: Exception) -> DeliveryError:
        if self._closed:
            return TransientFailure(f"{self.peer}: the channel was closed")
        if isinstance(error, ssl.SSLError):
            return _tls_failure(error, self.peer)
        if isinstance(error, MllpBroken):
            return TransientFailure(f"{self.peer}: it {error}")
        return TransientFailure(f"{self.peer}: {network_words(error, self._timeout, awaited='acknowledgement')}")


# Alerts by which a peer refuses the caller's certificate, or the lack of one (RFC 8446 6.2), as OpenSSL names them.
_CALLER_REFUSED: Final = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
}
_NO_COMMON_VERSION: Final = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}


def _tls_failure(error: ssl.SSLError, peer: MllpPeer) -> DeliveryError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return not_trusted(error, peer)
    if error.reason in _CALLER_REFUSED:
        return PermanentFailure(
            f"{peer}: it does not trust hilum ({error.reason}): set certificate and key of this destination, "
            "and have their issuer trusted there"
        )
    if error.reason == "WRONG_VERSION_NUMBER":
        return PermanentFailure(f"{peer}: it does not speak TLS: mend port or tls of this destination")
    if error.reason in _NO_COMMON_VERSION:
        return PermanentFailure(f"{peer}: it speaks no TLS of version 1.2 or later: have it enabled there")
    return TransientFailure(
        f"{peer}: TLS failed ({error.reason or type(error).__name__}): look at its log, and whether it wants "
        "a certificate of ours"
    )
