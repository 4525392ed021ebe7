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
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError
from schemas.identity import Sender
from schemas.rejection import Rejection

log = logging.getLogger("hilum.hl7")

_START, _END, _LINE_ENDS = b"\x0b", b"\x1c", b"\r\n"
_CHUNK: Final = 64 * 1024
_NOISE: Final = 1024  # bytes between messages that are no frame, before we hang up
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
    max_connections: int = 32
    max_message: int = 2 << 20  # bytes
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
        self._understanding = threading.Lock()  # one message at a time is in memory more than once
        self._open: dict[threading.Thread, socket.socket] = {}
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
        for thread, connection in left.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                with contextlib.suppress(OSError):
                    # Not the SSLSocket's own, which would first wait for the peer.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                thread.join(1.0)

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
            full = len(self._open) >= self._config.max_connections
            if not full:
                self._open[thread] = connection
        if full:
            words = f"limit of {self._config.max_connections} connections reached"
            self._tell(address, words, "let the sender close what it does not use, or raise max_connections of [hl7]")
            connection.close()
            return
        try:
            thread.start()
        except RuntimeError:  # the system has no room for another thread
            log.warning("not-accepted error=no-thread")
            self._forget(thread)
            connection.close()

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
            self._open[threading.current_thread()] = secure
        return secure

    def _converse(self, connection: socket.socket, address: str) -> None:
        frames = _Frames(connection, self._config, self._stopping)
        while True:
            block = frames.next()
            if block is None:
                return
            with self._understanding:
                answer = self._take(block, address)
            if answer:
                connection.settimeout(self._config.message_seconds)
                connection.sendall(_START + answer + _END + b"\r")
            if frames.broken:  # what follows is the rest of a message that was too long
                self._tell(
                    address,
                    "message too long",
                    f"raise max_message_kib of [hl7]; it is {self._config.max_message >> 10} now",
                )
                return

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


class _Frames:
    """The messages of one connection."""

    def __init__(self, connection: socket.socket, config: Hl7ListenerConfig, stopping: threading.Event) -> None:
        self._connection = connection
        self._config = config
        self._stopping = stopping
        self._received = bytearray()
        self._searched = 0  # bytes of a message in which its end was looked for
        self.broken = False

    def next(self) -> bytes | None:
        """The next message without its frame; None when there is no more, or none will come.

        One that is longer than allowed is given as far as it came, so that it can be refused by name; then `broken`.
        """
        deadline = time.monotonic() + self._config.idle_seconds
        begun = False
        while True:
            if not begun:
                if not self._skip_to_start():
                    return None
                if self._received:
                    begun = True
                    deadline = time.monotonic() + self._config.message_seconds
            if begun:
                end = self._received.find(_END, self._searched)
                if end >= 0:
                    # A sender that gave up in the middle begins anew: what it did not end it will send again.
                    block = bytes(self._received[self._received.rfind(_START, 0, end) + 1 : end])
                    del self._received[: end + 1]
                    self._searched = 0
                    return block
                self._searched = len(self._received)
                if len(self._received) > self._config.max_message:
                    self.broken = True
                    return bytes(self._received[1:])
            if not self._receive(deadline, begun):
                return None

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
