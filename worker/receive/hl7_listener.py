"""The port that HL7 v2 messages come in by: MLLP (HL7 v2.5.1 Implementation Support Guide, appendix C).

A message comes between VT and FS CR, its answer goes back on the same connection in the same frame. One thread accepts,
one serves each connection, and every wait, size and number of them is bounded: a peer that is slow, silent, gone or
hostile costs its own connection and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from schemas.errors import ConfigurationError, MessageRefused
from schemas.identity import Sender
from schemas.rejection import Rejection
from worker.receive.hl7_in import refuse

log = logging.getLogger("hilum.hl7")

_START, _END, _LINE_ENDS = b"\x0b", b"\x1c", b"\r\n"
_CHUNK: Final = 64 * 1024
_NOISE: Final = 1024  # bytes between messages that are no frame, before we hang up
_HEAD: Final = 64 * 1024  # bytes that are kept of a message that is too long, to refuse it by name
_STOP_SECONDS: Final = 0.5  # at which a thread that waits looks whether it is to stop
_QUIET_SECONDS: Final = 10.0  # in which the same refusal is told once
_MOST_TOLD: Final = 100  # refusals that are remembered for that
_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # a peer that is gone: two minutes

# From a message to its answer; empty bytes where its sender wants none.
Take = Callable[[bytes, str], bytes]


@dataclass(frozen=True, kw_only=True)
class Hl7ListenerConfig:
    """What the listener needs of `[hl7]`."""

    host: str = "127.0.0.1"
    port: int = 2575
    accept: Sequence[str] = ()  # addresses or networks; empty: whoever calls
    max_connections: int = 32  # half of them from one address: a peer that hangs keeps nobody else out
    max_message: int = 16 << 20  # bytes; so many are kept of each connection, and one message is understood at a time
    message_seconds: float = 30.0  # from a message's first byte to its last, and for its answer to be taken
    idle_seconds: float = 3600.0  # between messages
    tls: ssl.SSLContext | None = None


def tls_server(certificate: Path, key: Path | None, ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later; with `ca_file` only callers whose certificate it signed come in.

    Raises
    ------
    ConfigurationError
        A file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password that is none: without one OpenSSL would ask for it on the terminal, and wait.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError among it
        raise ConfigurationError(f"hl7.certificate, hl7.key: {certificate}, {key}: {_words(error)}") from error
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise ConfigurationError(f"hl7.ca_file: {ca_file}: {_words(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Hl7Listener:
    """Accepts connections from `start` to `stop`; each message goes through `take`."""

    def __init__(
        self,
        config: Hl7ListenerConfig,
        take: Take,
        rejected: Callable[[Rejection], object],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is open yet. Raises `ConfigurationError`."""
        try:
            self._accept = [ip_network(network, strict=False) for network in config.accept]
        except ValueError as error:
            raise ConfigurationError(f"hl7.accept: {error}") from error
        self._config = config
        self._take = take
        self._rejected = rejected
        self._clock = clock
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # One message at a time is in memory more than once; always in the same thread, for what the system's allocator
        # keeps when it is let go it keeps for each thread.
        self._understanding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hl7-message")
        self._open: dict[threading.Thread, _Call] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._server: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the port. Raises `ConfigurationError` when it cannot be opened."""
        config = self._config
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            self._server = socket.create_server((config.host, config.port), family=family, backlog=64)
        except OSError as error:
            words = error.strerror or "no such address"
            raise ConfigurationError(f"hl7: cannot listen on {config.host}:{config.port}: {words}") from error
        self._server.settimeout(_STOP_SECONDS)
        self._thread = threading.Thread(target=self._run, args=(self._server,), name="hl7-listener", daemon=True)
        self._thread.start()
        log.info("listening port=%d", self.port)

    def stop(self, timeout: float = 5.0) -> None:
        """Close the port; who is in the middle of a message has `timeout` seconds to finish it."""
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._server.close()
        self._server = None
        until = time.monotonic() + timeout
        with self._lock:
            left = dict(self._open)
        for thread, call in left.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                with contextlib.suppress(OSError):
                    # Not the SSLSocket's own, which would first wait for the peer.
                    socket.socket.shutdown(call.connection, socket.SHUT_RDWR)
                thread.join(1.0)
        self._understanding.shutdown(wait=False)

    @property
    def port(self) -> int:
        """The port that is open."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return int(self._server.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._open)

    def _run(self, server: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = server.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of file descriptors, or the caller was gone again
                log.warning("not-accepted error=%s", error.strerror)
                self._stopping.wait(_STOP_SECONDS)
                continue
            self._admit(connection, str(peer[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        if not self._is_allowed(address):
            self._tell(address, "address not allowed", f'add "{address}" to accept under [hl7]')
            connection.close()
            return
        thread = threading.Thread(target=self._serve, args=(connection, address), name="hl7", daemon=True)
        with self._lock:
            full = self._reached(address)
            if not full:
                self._open[thread] = _Call(address, connection)
        if full:
            self._tell(address, full, "let the sender close what it does not use, or raise max_connections of [hl7]")
            connection.close()
            return
        try:
            thread.start()
        except RuntimeError:  # the system has no room for another thread
            log.warning("not-accepted error=no-thread")
            self._forget(thread)
            connection.close()

    def _reached(self, address: str) -> str:
        """The limit that leaves no room for one more, in words; empty where there is room. Only under the lock."""
        most = self._config.max_connections
        if len(self._open) >= most:
            return f"limit of {most} connections reached"
        most = max(1, most // 2)
        if sum(call.address == address for call in self._open.values()) >= most:
            return f"limit of {most} connections from one address reached, half of max_connections"
        return ""

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._open.pop(thread, None)

    def _is_allowed(self, address: str) -> bool:
        return not self._accept or any(_address(address) in network for network in self._accept)

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            _prepare(connection)
            connection.settimeout(self._config.message_seconds)
            if self._config.tls is not None:
                connection = self._secure(self._config.tls, connection, address)
            self._converse(connection, address)
        except OSError as error:  # the peer went away, or was too slow
            log.info("connection-lost error=%s", type(error).__name__)
        finally:
            self._forget(threading.current_thread())
            connection.close()

    def _secure(self, tls: ssl.SSLContext, connection: socket.socket, address: str) -> socket.socket:
        try:
            secure = tls.wrap_socket(connection, server_side=True)
        except ssl.SSLError:
            self._tell(address, "no TLS", "let the sender speak TLS, with a certificate where ca_file is set")
            raise
        with self._lock:
            self._open[threading.current_thread()] = _Call(address, secure)
        return secure

    def _converse(self, connection: socket.socket, address: str) -> None:
        frames = _Frames(connection, self._config, self._stopping)
        while (answer := self._next_answer(frames, address)) is not None:
            if answer:
                connection.settimeout(self._config.message_seconds)
                connection.sendall(_START + answer + _END + b"\r")

    def _next_answer(self, frames: _Frames, address: str) -> bytes | None:
        """The answer to the next message, which is not kept; None when there is none."""
        frame = frames.next()
        if frame is None:
            return None
        if not frame.is_whole:
            return self._refuse(frame.block, address)
        return self._understanding.submit(self._take, frame.block, address).result()

    def _refuse(self, beginning: bytes, address: str) -> bytes:
        """The answer to a message that is too long: nothing of it is acted upon, also not what came in time."""
        most = self._config.max_message >> 10
        self._tell(address, "message too long", f"raise max_message_kib of [hl7]; it is {most} now")
        words = f"the message is longer than {most} KiB: send less, or raise max_message_kib of [hl7] at the receiver"
        return refuse(beginning, MessageRefused("104", words), self._clock())

    def _tell(self, address: str, what: str, mend: str) -> None:
        """Somebody was turned away: the page shows it with its mend."""
        now = time.monotonic()
        with self._lock:
            self._told = {key: at for key, at in self._told.items() if now - at < _QUIET_SECONDS}
            quiet = (address, what) in self._told or len(self._told) >= _MOST_TOLD
            if not quiet:
                self._told[address, what] = now
        if quiet:
            return
        log.warning("refused what=%r", what)
        try:
            sender = Sender(calling_ae="HL7 v2", called_ae="", address=address)
            self._rejected(Rejection(sender=sender, what=what, mend=mend, at=self._clock()))
        except Exception:  # the record may be away: that must not cost the listener
            log.exception("rejection-not-recorded")


class _Call(NamedTuple):
    """A connection that is open, and from where."""

    address: str
    connection: socket.socket


class _Frame(NamedTuple):
    """A message without its frame; of one that is longer than allowed the beginning."""

    block: bytes
    is_whole: bool


class _Frames:
    """The messages of one connection."""

    def __init__(self, connection: socket.socket, config: Hl7ListenerConfig, stopping: threading.Event) -> None:
        self._connection = connection
        self._config = config
        self._stopping = stopping
        self._received = bytearray()
        self._searched = 0  # bytes of a message in which its end was looked for
        self._is_too_long = False  # the message that is coming in: only its beginning is kept
        self._is_over = False

    def next(self) -> _Frame | None:
        """The next message; None when there is no more, or none will come.

        One that is longer than allowed goes by, until it ends or its time is up: its sender hears an answer only after
        the last byte, and is not to be hung up on before.
        """
        deadline = time.monotonic() + self._config.idle_seconds
        begun = False
        while not self._is_over:
            if not begun:
                if not self._skip_to_start():
                    return None
                if self._received:
                    begun = True
                    deadline = time.monotonic() + self._config.message_seconds
            if begun:
                frame = self._cut_out()
                if frame is not None:
                    return frame
            self._is_over = not self._receive(deadline, begun)
        if not self._is_too_long:
            return None
        self._is_too_long = False
        return _Frame(bytes(self._received[1:]), is_whole=False)

    def _cut_out(self) -> _Frame | None:
        """The message at the front once its end is there. Each byte is looked at once, in however small pieces."""
        received = self._received
        end = received.find(_END, self._searched)
        until = len(received) if end < 0 else end
        # A sender that gave up in the middle begins anew: what it did not end it will send again.
        anew = received.rfind(_START, max(1, self._searched), until)
        if anew > 0:
            del received[:anew]
            until -= anew
            self._is_too_long = False
        self._is_too_long = self._is_too_long or until - 1 > self._config.max_message
        if self._is_too_long:
            del received[_HEAD : until if end >= 0 else None]
            until = min(until, _HEAD)
        if end < 0:
            self._searched = until
            return None
        with memoryview(received) as view:
            frame = _Frame(bytes(view[1:until]), is_whole=not self._is_too_long)
        self._received = received[until + 1 :]  # the large one is let go
        self._searched, self._is_too_long = 0, False
        return frame

    def _skip_to_start(self) -> bool:
        """Drop what stands before VT; False where that is more than a stray line end or two."""
        start = self._received.find(_START)
        before = bytes(self._received if start < 0 else self._received[:start])
        if before.strip(_LINE_ENDS) or len(before) > _NOISE:
            log.info("no-frame bytes=%d", len(before))
            return False
        del self._received[: len(before)]
        return True

    def _receive(self, deadline: float, begun: bool) -> bool:
        """Wait for more; False when the peer is done, too slow, or we are to stop between messages."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or (self._stopping.is_set() and not begun):
                log.info("hung-up reason=%s", "stopping" if left > 0 else "too-slow" if begun else "idle")
                return False
            self._connection.settimeout(min(left, _STOP_SECONDS))
            try:
                chunk = self._connection.recv(_CHUNK)
            except TimeoutError:
                continue
            self._received += chunk
            return bool(chunk)


def _prepare(connection: socket.socket) -> None:
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _address(text: str) -> object:
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _words(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", None) or type(error).__name__
