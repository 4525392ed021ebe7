"""The webhook to a program under uvicorn, over TLS, and the HTTP line beneath it against servers that mean no good."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
import uvicorn
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook as Verifier

from schemas.errors import ConfigurationError, DeliveryError, PermanentFailure, TransientFailure
from tests.contract.channel.receiver_webhook import SECRET
from tests.http_receiver import HttpReceiver
from tests.http_receiver import Response as Said
from tests.unit.notify.flags import film, flag
from worker.assemble import channel as channel_of
from worker.notify.http import HttpLine
from worker.notify.network import tls_context
from worker.notify.webhook import Webhook, signing_key
from worker.settings import Settings, WebhookDestination

TIMEOUT = 0.6

Talk = Callable[[socket.socket], None]


def webhook(url: str, *, tls: ssl.SSLContext | None = None, timeout: float = 5.0, idle: float = 5.0) -> Webhook:
    return Webhook(
        name="program",
        url=url,
        clock=lambda: datetime.now(UTC),
        key=signing_key(SECRET),
        tls=tls,
        timeout=timeout,
        idle=idle,
    )


@contextlib.contextmanager
def peer(talk: Talk) -> Iterator[str]:
    """Listens, and does with each connection what `talk` says; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=attend, args=(connection,), daemon=True).start()

        def attend(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10)
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def request_of(connection: socket.socket) -> None:
    """Read it whole: to close on what was not read is to reset the connection, which may overtake the answer."""
    taken = b""
    while b"\r\n\r\n" not in taken:
        taken += _more(connection)
    head, _, body = taken.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *([0-9]+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(_more(connection))


def _more(connection: socket.socket) -> bytes:
    chunk = connection.recv(65536)
    if not chunk:
        raise OSError("the sender went away")
    return chunk


def says(*parts: bytes, pause: float = 0.0, hold: bool = False) -> Talk:
    def talk(connection: socket.socket) -> None:
        request_of(connection)
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        if hold:
            connection.recv(1)

    return talk


def without_end(start: bytes, part: bytes, pause: float = 0.0) -> Talk:
    def talk(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(start)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            connection.sendall(part)
            time.sleep(pause)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE: dict[str, Talk] = {
    "a body without end": without_end(OK + b"\r\n", b"x" * 65536),
    "chunks without end": without_end(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "headers without end": without_end(OK, b"X-Again: 1\r\n" * 1000),
    "one header without end": without_end(OK + b"X: ", b"x" * 65536),
    "continue without end": without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a trailer without end": without_end(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "a status, drop by drop": without_end(b"HTTP/1.1 200 ", b"O", 0.05),
    "a body, drop by drop": without_end(OK + b"Content-Length: 100000\r\n\r\n", b"x", 0.05),
    "a body that is too long by its header": says(OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 2000000),
    "half a body, then nothing": says(OK + b"Content-Length: 100\r\n\r\nhalf", hold=True),
    "half a body, then the end": says(OK + b"Content-Length: 100\r\n\r\nhalf"),
    "half a chunk, then the end": says(OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf"),
    "a chunk of no size": says(OK + b"Transfer-Encoding: chunked\r\n\r\nlarge\r\n"),
    "no HTTP": says(b"220 mail.example ESMTP\r\n"),
    "noise": says(bytes(range(256)) * 10),
    "a status that is none": says(b"HTTP/1.1 twohundred OK\r\n\r\n"),
    "HTTP of another age": says(b"HTTP/9.9 200 OK\r\n\r\n"),
    "nothing": says(hold=True),
    "the end": says(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_server_does_it_is_a_passing_fault_in_bounded_time(name: str) -> None:
    with peer(HOSTILE[name]) as url, closing(webhook(url, timeout=TIMEOUT)) as channel:
        began = time.monotonic()
        with pytest.raises(TransientFailure, match=r"^127\.0\.0\.1:\d+: .+: "):
            channel.send(flag())
        assert time.monotonic() - began < TIMEOUT + 5  # on a machine that has other things to do


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nConnection: close\r\n\r\nmore",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\n",
    ],
)
def test_an_answer_that_is_odd_and_clear_is_taken(answer: bytes) -> None:
    with peer(says(answer)) as url, closing(webhook(url)) as channel:
        assert channel.send(flag()).proof.startswith("HTTP 20")


@pytest.mark.parametrize(
    ("status", "words"), [(200, "is reachable"), (405, "no fault"), (501, "HTTP 501, which is no fault")]
)
def test_whoever_answers_is_reachable(status: int, words: str) -> None:
    answer = f"HTTP/1.1 {status} As it is\r\nContent-Length: 0\r\n\r\n".encode()
    with peer(says(answer)) as url, closing(webhook(url)) as channel:
        said = channel.check()
    assert "is reachable" in said
    assert words in said
    assert ("no fault" in said) == (status != 200)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    elsewhere = HttpReceiver(lambda request: Said(status=200))
    here = HttpReceiver(lambda request: Said(status=status, headers={"Location": f"{elsewhere.url}/"}))
    elsewhere.start()
    here.start()
    try:
        with closing(webhook(here.url)) as channel:
            with pytest.raises(PermanentFailure, match=r"points elsewhere.*mend the URL"):
                channel.send(flag())
            with pytest.raises(PermanentFailure, match="mend the URL"):
                channel.check()
        assert elsewhere.requests == []
    finally:
        here.stop()
        elsewhere.stop()


def test_a_connection_is_kept_and_let_go() -> None:
    receiver = HttpReceiver(lambda request: Said(status=202))
    receiver.start()
    try:
        with closing(webhook(receiver.url, idle=0.3)) as channel:
            channel.send(flag())
            channel.send(flag(revision=2))
            assert receiver.connections == 1
            time.sleep(1.5)
            channel.send(flag(revision=3))
            assert receiver.connections == 2
    finally:
        receiver.stop()


def test_a_kept_connection_that_died_is_replaced() -> None:
    def once(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        connection.recv(1)  # the next request is taken, and not answered

    with peer(once) as url, closing(webhook(url)) as channel:
        channel.send(flag())
        assert channel.send(flag(revision=2)).proof == "HTTP 202"


def test_a_server_that_asks_to_be_left_alone_is() -> None:
    receiver = HttpReceiver(lambda request: Said(status=429, headers={"Retry-After": "1"}))
    receiver.start()
    try:
        with closing(webhook(receiver.url)) as channel:
            for words in ("429", "left alone", "left alone"):
                with pytest.raises(TransientFailure, match=words):
                    channel.send(flag())
            assert len(receiver.requests) == 1
            receiver.answer = lambda request: Said(status=202)
            time.sleep(1.1)
            assert channel.send(flag()).proof == "HTTP 202"
    finally:
        receiver.stop()


@pytest.mark.parametrize("talk", [says(hold=True), without_end(OK + b"\r\n", b"x", 0.01)], ids=["silent", "slow"])
def test_closing_ends_a_request_at_once(talk: Talk) -> None:
    with peer(talk) as url:
        line = HttpLine(url, timeout=60)
        failures: list[DeliveryError] = []

        def ask() -> None:
            try:
                line.ask("GET", "/")
            except DeliveryError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        began = time.monotonic()
        line.close()
        asking.join(10)
        assert time.monotonic() - began < 3
        assert [type(failure) for failure in failures] == [TransientFailure]


def test_closing_ends_a_connection_that_does_not_come_about() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # whoever comes now is not answered
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        line = HttpLine(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=60)
        failures: list[str] = []

        def ask() -> None:
            try:
                line.ask("GET", "/")
            except TransientFailure as failure:
                failures.append(str(failure))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        assert asking.is_alive()
        began = time.monotonic()
        line.close()
        asking.join(10)
        assert time.monotonic() - began < 3
        assert [failure.endswith("the channel is closed") for failure in failures] == [True]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def program(authority: trustme.CA, tmp_path: Path) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A FastAPI program under uvicorn, over TLS; its URL and the events that it took."""
    certificate = authority.issue_cert("127.0.0.1")
    files = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    app, taken = FastAPI(), []

    @app.post("/flags", status_code=202)
    async def take(request: Request, response: Response) -> dict[str, str]:
        taken.append(Verifier(SECRET).verify(await request.body(), dict(request.headers)))
        response.headers["Location"] = f"/flags/{len(taken)}"
        return {}

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, ssl_certfile=files[0], ssl_keyfile=str(files[1])
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.02)
    yield f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/flags", taken
    server.should_exit = True
    thread.join(10)


def test_over_tls_to_a_program(
    program: tuple[str, list[dict[str, object]]], authority: trustme.CA, tmp_path: Path
) -> None:
    url, taken = program
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with closing(webhook(url, tls=tls_context(tmp_path / "ca.pem", None, None))) as channel:
        assert "405" in channel.check()
        proofs = [channel.send(flag(film(), revision=revision)).proof for revision in (1, 2, 3)]
    assert proofs == [f"HTTP 202, /flags/{number}" for number in (1, 2, 3)]
    assert [event["type"] for event in taken] == ["hilum.study.left-in-order"] * 3


def test_a_certificate_of_another_authority_needs_a_person(program: tuple[str, list[dict[str, object]]]) -> None:
    url, taken = program
    with closing(webhook(url)) as channel, pytest.raises(PermanentFailure, match=r"not trusted.*mend ca_file"):
        channel.send(flag())
    assert taken == []


def test_a_server_without_tls_needs_a_person() -> None:
    receiver = HttpReceiver(lambda request: Said())
    receiver.start()
    try:
        url = receiver.url.replace("http:", "https:")
        with closing(webhook(url)) as channel, pytest.raises(PermanentFailure, match="does not speak TLS"):
            channel.send(flag())
    finally:
        receiver.stop()


def test_the_settings_make_the_channel(program: tuple[str, list[dict[str, object]]]) -> None:
    url, _ = program
    destination = WebhookDestination(name="program", kind="webhook", url=url, secret=SECRET)
    with closing(channel_of(destination, Settings())) as channel, pytest.raises(PermanentFailure, match="mend ca_file"):
        channel.send(flag())
    with pytest.raises(ConfigurationError, match="destinations: program: secret: "):
        channel_of(WebhookDestination(name="program", kind="webhook", url=url, secret="change me"), Settings())
    with pytest.raises(ConfigurationError, match="destinations: program: ca_file: "):
        channel_of(WebhookDestination(name="program", kind="webhook", url=url, ca_file=Path("/nowhere")), Settings())
