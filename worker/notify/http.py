"""HTTP/1.1 to one server, by the standard library's http.client on one blocking socket.

http.client waits for each read apart and reads whatever comes. Here a request has one deadline, from the connection to
the last byte of its answer, an answer has a greatest size, and another thread can end it. Redirects are answers like
any other, to be followed by nobody; proxies of the environment are not asked.
"""

from __future__ import annotations

import io
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPMessage, IncompleteRead
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from worker import __version__
from worker.notify.idle import IDLE_SECONDS, Idle
from worker.notify.network import cut_off, network_words, not_trusted

log = logging.getLogger("hilum.notify")

LONGEST_ANSWER: Final = 1 << 20  # bytes of a body, where the caller says nothing else
LONGEST_REST: Final = 300.0  # seconds for which a server's Retry-After is believed

_CHUNK: Final = 64 * 1024
_BROKE_OFF: Final = "broke off in the middle of its answer: look at its log"
Words: TypeAlias = Mapping[int, str]  # the mend, by status


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said, whole."""

    status: int
    headers: HTTPMessage
    body: bytes


class HttpBroken(Exception):
    """The server went away, or what it sent is no answer in HTTP."""


class HttpLine:
    """Keeps a connection open between requests that follow one another closely, and lets it go when none does.

    One thread asks; `close` may come from another, and ends what is under way.

    Parameters
    ----------
    url:
        Of the server; what stands behind host and port is the caller's to ask for.
    tls:
        For https: whom to trust.
    """

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None = None, timeout: float, idle: float = IDLE_SECONDS
    ) -> None:
        parts = urlsplit(url)
        self.where = parts.netloc
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._tls = (tls or ssl.create_default_context()) if self._secure else None
        self._timeout = timeout
        self._lock = threading.Lock()  # held while a request is under way
        self._socket: socket.socket | None = None  # known to `close` before it is connected
        self._not_before = 0.0  # until then the server asked to be left alone
        self._idle = Idle(idle, self._lock, keeps=lambda: self._socket is not None, let_go=self._drop)
        self._closed = False

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        longest: int = LONGEST_ANSWER,
    ) -> Answer:
        """The answer, whatever its status.

        A request that meets a connection which died while nobody looked goes out a second time: it must be one that
        is the same when it comes twice.

        Raises
        ------
        TransientFailure, PermanentFailure
            There is no answer.
        """
        request = (method, target, body, {"User-Agent": f"hilum/{__version__}", **(headers or {})})
        with self._lock:
            left = self._not_before - time.monotonic()
            if left > 0:
                raise TransientFailure(f"{self.where}: it asked to be left alone for another {left:.0f} s: wait")
            deadline = time.monotonic() + self._timeout
            try:
                if self._socket is not None and self._is_quiet(self._socket):
                    try:
                        return self._exchange(request, deadline, longest)
                    except (HttpBroken, ConnectionError, ssl.SSLEOFError):
                        log.info("connection-died peer=%s", self.where)
                self._drop()
                self._connect(deadline)
                return self._exchange(request, deadline, longest)
            except (HttpBroken, OSError, UnicodeError) as error:  # UnicodeError: no such name can be
                self._drop()
                raise self._failure(error) from error
            finally:
                self._rest()

    def close(self) -> None:
        """Let go of the server for good, if need be in the middle of a request, which then fails for the time being."""
        self._closed = True
        busy = self._socket
        if busy is not None:
            cut_off(busy)
        with self._lock:  # at once: whoever held it has been cut off
            self._idle.cancel()
            self._drop()

    def _connect(self, deadline: float) -> None:
        began = time.perf_counter()
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            self._socket = socket.socket(family, kind, protocol)
            self._refuse_if_closed()
            try:
                self._socket.settimeout(_left(deadline))
                self._socket.connect(address)
            except OSError as error:
                failure = error
                self._drop()
                continue
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                secure = self._tls.wrap_socket(self._socket, server_hostname=self._host, do_handshake_on_connect=False)
                self._socket = secure
                self._refuse_if_closed()
                secure.settimeout(_left(deadline))
                secure.do_handshake()
            log.info("connected peer=%s ms=%.1f", self.where, 1000 * (time.perf_counter() - began))
            return
        raise failure

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise HttpBroken("is not asked any more")

    def _exchange(
        self, request: tuple[str, str, bytes | None, Mapping[str, str]], deadline: float, longest: int
    ) -> Answer:
        self._refuse_if_closed()
        assert self._socket is not None  # noqa: S101
        connection = HTTPConnection(self._host, self._port)
        connection.sock = _Timed(self._socket, deadline)
        method, target, body, headers = request
        try:
            connection.request(method, target, body, {"Host": self.where, **headers})
            response = connection.getresponse()
            content = response.read(longest + 1)
            whole = response.isclosed() or not response.read(1)
        except IncompleteRead as error:
            raise HttpBroken(_BROKE_OFF) from error
        except HTTPException as error:
            raise HttpBroken(f"answers what is not HTTP ({type(error).__name__}): is the port right?") from error
        except ValueError as error:  # a length or a chunk of it that is no number
            raise HttpBroken("answers what is not HTTP: is the port right?") from error
        self._refuse_if_closed()  # an answer that ends with the connection would seem whole
        if len(content) > longest or not whole:
            raise HttpBroken("answers more than was asked for: is the URL right?")
        if response.length:
            raise HttpBroken(_BROKE_OFF)
        if response.will_close:
            self._drop()
        answer = Answer(status=response.status, headers=response.headers, body=content)
        if answer.status in {429, 503}:
            self._not_before = time.monotonic() + min(LONGEST_REST, _retry_after(answer.headers))
        return answer

    def _is_quiet(self, kept: socket.socket) -> bool:
        """Whether the server is there and has said nothing since its last answer."""
        try:
            kept.settimeout(0)
            kept.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):  # nothing, or a session ticket of TLS 1.3
            return True
        except OSError:
            return False
        return False

    def _drop(self) -> None:
        dropped, self._socket = self._socket, None
        if dropped is not None:
            dropped.close()

    def _rest(self) -> None:
        if self._closed:
            self._drop()
        self._idle.used()

    def _failure(self, error: Exception) -> DeliveryError:
        if self._closed:
            return TransientFailure(f"{self.where}: the channel is closed")
        if isinstance(error, ssl.SSLCertVerificationError):
            return not_trusted(error, self.where)
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return PermanentFailure(f"{self.where}: it does not speak TLS: mend the URL of this destination")
        if isinstance(error, HttpBroken):
            words = f"it {error}"
        elif isinstance(error, ssl.SSLError):
            words = f"TLS failed ({error.reason or type(error).__name__}): look at its log"
        else:
            words = network_words(error, self._timeout, mend="the URL", otherwise=": look at its log")
        return TransientFailure(f"{self.where}: {words}")


class _Timed:
    """What http.client takes for a socket: every wait ends at the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self._socket, self._deadline), _CHUNK)

    def close(self) -> None:
        """Not yet: http.client closes before it reads an answer that ends with the connection."""


class _Reads(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)


def refusal(
    answer: Answer, where: str, mends: Words, said: str = "", *, passing: Collection[int] = ()
) -> DeliveryError:
    """What an answer that is no success means: try again later, or have somebody mend it (RFC 9110 15).

    `mends` holds the mend by status, `passing` what passes here besides what passes everywhere; `said` is what the
    server gave for its reason, in codes.
    """
    status = answer.status
    spoken = f"{where}: it answers HTTP {status}" + (f" ({said})" if said else "")
    if status in {408, 425, 429, *passing} or status >= 500:
        return TransientFailure(f"{spoken}: is it overloaded, or being mended? look at its log")
    mend = mends.get(status) or _MENDS.get(status) or _MENDS[status // 100]
    return PermanentFailure(f"{spoken}: {mend}")


_MENDS: Final[Words] = {
    1: "mend the URL of this destination",
    2: "mend the URL of this destination",
    3: "it points elsewhere, where hilum does not follow: mend the URL of this destination",
    4: "look at its log, and mend it there",
    401: "it does not know hilum: mend the secret or token of this destination",
    403: "hilum may not do this there: mend the secret or token of this destination, or its rights there",
    404: "nothing is there: mend the URL of this destination",
    405: "it takes nothing there: mend the URL of this destination",
    410: "nothing is there any more: mend the URL of this destination, or take the destination out",
    413: "it is too large for it: raise the limit there",
    415: "it does not take this kind of content: mend the URL of this destination",
}


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _retry_after(headers: HTTPMessage) -> float:
    """Seconds (RFC 9110 10.2.3); a date is told by the server's own clock."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
    except (TypeError, ValueError):
        return 0.0
