"""An HTTP server that a test can teach habits; what it says when it behaves is the test's."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Response:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpReceiver:
    """Listens on the loopback; `answer` is asked for every request, one at a time, unless a habit comes before it."""

    def __init__(self, answer: Callable[[Request], Response], *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.tls = tls
        self.port = 0
        self.connections = 0
        self.requests: list[Request] = []
        self.heal()
        self._lock = threading.Lock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Behave."""
        self.habit: Response | None = None  # said to everything
        self.stall = False  # take it and never answer
        self.drop = False  # take it and hang up
        self.raw: bytes | None = None  # sent as it is instead of an answer, then the connection is closed

    def start(self) -> None:
        """Listen; after `stop` again on the same port."""
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def say(self, request: Request) -> Response:
        with self._lock:
            self.requests.append(request)
            return self.habit or self.answer(request)


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, receiver: HttpReceiver) -> None:
        self.receiver = receiver
        self.over = threading.Event()
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", receiver.port), _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        self.receiver.connections += 1
        if self.receiver.tls is not None:
            connection = self.receiver.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.open.add(connection)
        return connection, address

    def hang_up(self) -> None:
        self.over.set()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to be said."""

    def shutdown_request(self, request: socket.socket) -> None:
        self.open.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        receiver = self.server.receiver
        request = Request(
            method=self.command,
            target=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length", "0"))),
        )
        if receiver.stall:
            self.server.over.wait(60)
        if receiver.stall or receiver.drop:
            self.close_connection = True
            return
        if receiver.raw is not None:
            self.wfile.write(receiver.raw)
            self.close_connection = True
            return
        response = receiver.say(request)
        head = [f"HTTP/1.1 {response.status} Whatever", f"Content-Length: {len(response.body)}"]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        self.wfile.write("\r\n".join([*head, "", ""]).encode("latin-1") + response.body)

    do_GET = do_POST = do_PUT = do_OPTIONS = _serve  # noqa: N815  names of http.server's

    def log_message(self, *args: object) -> None:
        """Nothing."""
