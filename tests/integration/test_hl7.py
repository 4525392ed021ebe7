"""HL7 over MLLP to a receiver by an independent library (python-hl7), and to peers that behave badly, each its way."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

from schemas.errors import ConfigurationError, DeliveryError, PermanentFailure, TransientFailure
from tests.integration.test_sr_transport import eventually, listener
from tests.mllp import MllpReceiver, parse
from tests.unit.notify.flags import VALID, flag, named
from worker.notify.hl7_messages import Envelope, build_oru
from worker.notify.hl7_order import Hl7Order
from worker.notify.hl7_oru import Hl7Oru
from worker.notify.mllp import MllpPeer
from worker.notify.network import tls_context

DUPLICATE = "ERR|||205^Duplicate key identifier^HL70357|E"


@pytest.fixture
def receiver() -> Iterator[MllpReceiver]:
    made = MllpReceiver()
    made.start()
    yield made
    made.stop()


def to(port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, **more: Any) -> closing[Hl7Oru]:
    return closing(Hl7Oru(name="ris", peer=MllpPeer(host=host, port=port, tls=tls), envelope=Envelope(), **more))


# A receiver that behaves well


def test_a_result_arrives_whole_and_is_acknowledged(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        receipt = channel.send(flag())
    assert receipt.proof == f"ACK AA {receipt.object_id}"
    (message,) = receiver.messages
    assert str(message).encode() == build_oru(flag(), Envelope()).encoded


@pytest.mark.parametrize("case", VALID)
def test_every_flag_arrives_as_the_standard_wants_it(receiver: MllpReceiver, case: str, tmp_path: Path) -> None:
    peer = MllpPeer(host="127.0.0.1", port=receiver.port)
    omi = Hl7Order(name="orders", peer=peer, envelope=Envelope())
    orm = Hl7Order(name="orders", peer=peer, envelope=Envelope(), message="ORM^O01")
    with to(receiver.port) as channel, closing(omi), closing(orm):
        for each in (channel, omi, orm):
            each.send(VALID[case])
    assert [str(message.segment("MSH")[9]) for message in receiver.messages] == [
        *("ORU^R01^ORU_R01", "OMI^O23^OMI_O23", "ORM^O01^ORM_O01")
    ]
    for message in receiver.messages[:2]:  # hl7apy cannot validate an ORM^O01, see tests/unit/notify
        read = parse_message(str(message), validation_level=VALIDATION_LEVEL.TOLERANT)
        if VALID[case].context.patient_id:
            assert read.validate(report_file=str(tmp_path / "report"))


def test_the_receiver_of_another_library() -> None:
    """hl7apy's, which routes by MSH-9, parses by the structures of the standard and hangs up after each message."""

    class Accept(AbstractHandler):
        def reply(self) -> str:
            control_id = parse_message(self.incoming_message).msh.msh_10.to_er7()
            ack = Message("ACK", version="2.5.1")
            ack.msa.msa_1, ack.msa.msa_2 = "AA", control_id
            return str(ack.to_mllp())

    handlers = dict.fromkeys(("ORU^R01^ORU_R01", "OMI^O23^OMI_O23"), (Accept,))
    with MLLPServer("127.0.0.1", 0, handlers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        peer = MllpPeer(host="127.0.0.1", port=server.server_address[1])
        with to(peer.port) as channel, closing(Hl7Order(name="o", peer=peer, envelope=Envelope())) as order:
            for revision in (1, 2):
                for each in (channel, order):
                    receipt = each.send(flag(revision=revision))
                    assert receipt.proof == f"ACK AA {receipt.object_id}"
        server.shutdown()


@pytest.mark.parametrize("character_set", ["UNICODE UTF-8", "8859/1", "ASCII"])
def test_character_sets(receiver: MllpReceiver, character_set: str) -> None:
    channel = Hl7Oru(
        name="ris",
        peer=MllpPeer(host="127.0.0.1", port=receiver.port),
        envelope=Envelope(character_set=character_set),
    )
    with closing(channel):
        channel.send(named("Müller^Jörg=山田^太郎", study_description="胸部|正面"))
    (message,) = receiver.messages
    name = str(message.segment("PID")[5])
    assert (
        name
        == {
            "UNICODE UTF-8": "Müller^Jörg^^^^^L^A~山田^太郎^^^^^L^I",
            "8859/1": "Müller^Jörg^^^^^L^A",
            "ASCII": "M?ller^J?rg^^^^^L^A",
        }[character_set]
    )
    assert len(str(message.segment("OBR")[4]).split("^")) == 6


def test_many_messages_go_over_one_connection_in_order(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        receipts = [channel.send(flag(revision=r)) for r in range(1, 51)]
    assert [str(m.segment("MSH")[10]) for m in receiver.messages] == [r.object_id for r in receipts]
    assert receiver.connections == 1


def test_the_connection_is_let_go_when_nothing_is_sent(receiver: MllpReceiver) -> None:
    with to(receiver.port, idle=0.1) as channel:
        channel.send(flag())
        assert receiver.open_connections == 1
        eventually(lambda: receiver.open_connections == 0)
        channel.send(flag(revision=2))
        eventually(lambda: receiver.open_connections == 0)
    assert receiver.connections == 2


def test_closing_hangs_up(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        channel.send(flag())
        channel.close()
        eventually(lambda: receiver.open_connections == 0)
        for act in (lambda: channel.send(flag()), channel.check):
            with pytest.raises(TransientFailure, match="closed"):
                act()


def test_check_connects_and_says_nothing(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        assert channel.check() == f"127.0.0.1:{receiver.port} takes the call"
        eventually(lambda: receiver.open_connections == 0)
    assert receiver.connections == 1
    assert receiver.messages == []


# Its answers


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_accepted(receiver: MllpReceiver, code: str) -> None:
    receiver.code = code
    with to(receiver.port) as channel:
        assert channel.send(flag()).proof.startswith(f"ACK {code} ")


@pytest.mark.parametrize(
    ("code", "errors", "failure"),
    [
        ("AE", (), TransientFailure),
        ("AE", ("ERR|||206^Application record locked^HL70357|E",), TransientFailure),
        ("AE", ("ERR||PID^1^3|101^Required field missing^HL70357|E||||Doe Jane",), PermanentFailure),
        ("AR", (), PermanentFailure),
        ("AR", ("ERR|||207^Application internal error^HL70357|E",), TransientFailure),
        ("AR", ("ERR|||203^Unsupported version id^HL70357|E",), PermanentFailure),
        ("AR", (DUPLICATE,), PermanentFailure),
    ],
)
def test_refused(receiver: MllpReceiver, code: str, errors: tuple[str, ...], failure: type[DeliveryError]) -> None:
    receiver.code, receiver.errors = code, errors
    with to(receiver.port) as channel:
        with pytest.raises(failure, match=f"ACK {code}") as refused:
            channel.send(flag())
        assert "Doe" not in str(refused.value)
        receiver.heal()
        channel.send(flag())
    assert receiver.connections == 1, "a refusal is no reason to hang up"


def test_a_message_that_arrived_unanswered_is_delivered_when_it_is_called_a_duplicate(receiver: MllpReceiver) -> None:
    with to(receiver.port, timeout=0.5) as channel:
        receiver.stall = True
        with pytest.raises(TransientFailure):
            channel.send(flag())
        receiver.heal()
        receiver.code, receiver.errors = "AR", (DUPLICATE,)
        assert channel.send(flag()).proof.endswith("it was there already")
        with pytest.raises(PermanentFailure, match="of this number already"):
            channel.send(flag(revision=2))


def test_a_message_that_never_went_out_is_no_duplicate(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        receiver.stop()
        with pytest.raises(TransientFailure):
            channel.send(flag())
        receiver.start()
        receiver.code, receiver.errors = "AR", (DUPLICATE,)
        with pytest.raises(PermanentFailure):
            channel.send(flag())


def test_late_acknowledgements_of_other_messages_are_passed_over(receiver: MllpReceiver) -> None:
    late = build_oru(flag(revision=7), Envelope()).control_id.encode()

    def twice(ack: bytes) -> bytes:
        other = ack.replace(ack.split(b"|")[-1].strip(), late).replace(b"MSA|AA", b"MSA|AR")
        assert late in other
        return other + b"\x1c\r\r\n\x0b" + ack

    receiver.rewrite = twice
    with to(receiver.port) as channel:
        for revision in (1, 2):
            receipt = channel.send(flag(revision=revision))
            assert receipt.proof == f"ACK AA {receipt.object_id}"


def test_a_second_answer_to_a_message_is_none_to_its_resend(receiver: MllpReceiver) -> None:
    receiver.rewrite = lambda ack: ack + b"\x1c\r\x0b" + ack.replace(b"MSA|AA", b"MSA|AR")
    with to(receiver.port) as channel:
        for _ in range(3):
            assert channel.send(flag()).proof.startswith("ACK AA")


def test_an_acknowledgement_of_another_message_alone_is_none(receiver: MllpReceiver) -> None:
    receiver.rewrite = lambda ack: ack.replace(ack.split(b"|")[-1].strip(), b"ANOTHER")
    with to(receiver.port, timeout=0.5) as channel, pytest.raises(TransientFailure, match="no acknowledgement within"):
        channel.send(flag())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "is no acknowledgement"),
        (b"Doe^Jane", "is no acknowledgement"),
        (b"MSH|^~\\&|Doe\rMSA|AR|\r", "does not say to which message"),
        (b"x" * 70_000, "far more than an acknowledgement"),
    ],
)
def test_answers_that_are_none(receiver: MllpReceiver, answer: bytes, words: str) -> None:
    receiver.rewrite = lambda ack: answer
    with to(receiver.port) as channel:
        with pytest.raises(TransientFailure, match=words) as failure:
            channel.send(flag())
        assert "Doe" not in str(failure.value)
        receiver.heal()
        channel.send(flag())


# A kept connection that died


def test_a_receiver_that_hangs_up_after_each_message_is_no_failure(receiver: MllpReceiver) -> None:
    receiver.hang_up_after = True
    with to(receiver.port) as channel:
        for revision in range(1, 6):
            channel.send(flag(revision=revision))
    assert len(receiver.messages) == receiver.connections == 5


def test_a_receiver_that_was_restarted_in_between_is_found_again(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        channel.send(flag())
        receiver.stop()
        receiver.start()
        channel.send(flag(revision=2))
    assert len(receiver.messages) == 2


def test_a_connection_that_dies_in_the_answer_is_opened_again_once(receiver: MllpReceiver) -> None:
    with to(receiver.port) as channel:
        channel.send(flag())
        receiver.drop = True
        with pytest.raises(TransientFailure, match="closed the connection"):
            channel.send(flag(revision=2))
        assert receiver.connections == 2


# The network


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    with to(port) as channel:
        for act in (lambda: channel.send(flag()), channel.check):
            with pytest.raises(TransientFailure, match="nothing listens there"):
                act()


def test_a_host_that_has_no_address() -> None:
    with to(2575, host="no.such.host.invalid") as channel, pytest.raises(TransientFailure, match="name is not known"):
        channel.send(flag())


def block(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\x1c\r"):
        chunk = connection.recv(1 << 16)
        if not chunk:
            raise OSError("the sender went away")
        received += chunk
    return received


def silence(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    time.sleep(60)


def deaf(connection: socket.socket) -> None:
    time.sleep(60)


def drip(connection: socket.socket) -> None:
    """One byte now and then: every read succeeds, and nothing ever comes of it."""
    block(connection)
    for byte in b"\x0bMSH|^~\\&|" + 1000 * b"x":
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def half(connection: socket.socket) -> None:
    block(connection)
    connection.sendall(b"\x0bMSH|^~\\&|RIS\rMSA|A")


def half_closed(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    time.sleep(60)


def another_protocol(connection: socket.socket) -> None:
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    time.sleep(60)


def endless(connection: socket.socket) -> None:
    block(connection)
    connection.sendall(b"\x0b")
    while True:
        connection.sendall(bytes(1 << 16))


def reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def hang_up(connection: socket.socket) -> None:
    block(connection)


def hang_up_at_once(connection: socket.socket) -> None:
    pass


@pytest.mark.parametrize(
    "behave",
    [silence, deaf, drip, half, half_closed, another_protocol, endless, reset, hang_up, hang_up_at_once],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_peers_that_are_none(behave: Callable[[socket.socket], None], tls: bool) -> None:
    context = tls_context(None, None, None) if tls else None
    with listener(behave) as port, to(port, timeout=0.5, tls=context) as channel:
        for _ in range(2):
            began = time.monotonic()
            # A peer that talks in the clear where TLS was asked for needs a person.
            with pytest.raises(DeliveryError if tls else TransientFailure, match=":"):
                channel.send(flag())
            assert time.monotonic() - began < 5


def test_a_peer_that_hangs_up_on_callers_fails_the_check() -> None:
    with (
        listener(hang_up_at_once) as port,
        to(port) as channel,
        pytest.raises(TransientFailure, match="closed the connection"),
    ):
        channel.check()


@pytest.mark.parametrize("tls", [False, True], ids=["in the answer", "in the handshake"])
def test_closing_from_another_thread_ends_a_send_at_once(tls: bool) -> None:
    context = tls_context(None, None, None) if tls else None
    failures: list[Exception] = []
    called = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.recv(1)
        called.set()
        time.sleep(60)

    with listener(stall) as port, to(port, timeout=60, tls=context) as channel:

        def deliver() -> None:
            try:
                channel.send(flag())
            except TransientFailure as failure:
                failures.append(failure)

        sender = threading.Thread(target=deliver)
        sender.start()
        assert called.wait(10)
        time.sleep(0.1)
        began = time.monotonic()
        channel.close()
        sender.join(30)
        assert time.monotonic() - began < 5
    (failure,) = failures
    assert "closed" in str(failure)


def test_no_thread_is_left_behind(receiver: MllpReceiver) -> None:
    with to(receiver.port, idle=60) as channel:
        channel.send(flag())
    eventually(lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)])


# TLS


class Authority:
    """Certificates by the openssl command, for one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, *, address: str = "127.0.0.1", days: int = 2, password: str = "") -> tuple[Path, Path]:
        """A certificate and its key."""
        certificate, key = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        request, names = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names.write_text(f"subjectAltName = IP:{address}\n")
        openssl(
            *("req", "-new", "-newkey", "rsa:2048", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
            *(("-passout", f"pass:{password}") if password else ("-nodes",)),
        )
        openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", str(days), "-extfile", str(names), "-out", str(certificate)),
        )
        return certificate, key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


def served(authority: Authority, name: str = "ris", *, clients: Path | None = None, **more: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(*authority.issue(name, **more))
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def secure(receiver: MllpReceiver) -> Callable[[ssl.SSLContext], int]:
    """Starts the receiver anew under TLS; its port."""

    def restart(context: ssl.SSLContext) -> int:
        receiver.stop()
        receiver.tls = context
        receiver.start()
        return receiver.port

    return restart


Secure = Callable[[ssl.SSLContext], int]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls(receiver: MllpReceiver, secure: Secure, authority: Authority, version: ssl.TLSVersion) -> None:
    context = served(authority)
    context.minimum_version = context.maximum_version = version
    port = secure(context)
    with to(port, tls=tls_context(authority.certificate, None, None)) as channel:
        assert channel.check() == f"127.0.0.1:{port} takes the call over TLS"
        for revision in (1, 2, 3):
            channel.send(flag(revision=revision))
        receiver.hang_up_after = True
        for revision in (4, 5):
            channel.send(flag(revision=revision))
    assert len(receiver.messages) == 5
    assert receiver.connections == 3, "the check's, the kept one, and one for that which was hung up on"


def test_a_stalled_receiver_under_tls(receiver: MllpReceiver, secure: Secure, authority: Authority) -> None:
    port = secure(served(authority))
    with to(port, timeout=0.5, tls=tls_context(authority.certificate, None, None)) as channel:
        receiver.stall = True
        with pytest.raises(TransientFailure, match=r"no acknowledgement within 0\.5 s"):
            channel.send(flag())
        receiver.heal()
        channel.send(flag())


def test_another_authority(secure: Secure, authority: Authority, stranger: Authority) -> None:
    port = secure(served(stranger))
    with to(port, tls=tls_context(authority.certificate, None, None)) as channel:
        for act in (lambda: channel.send(flag()), channel.check):
            with pytest.raises(PermanentFailure, match=r"is not trusted \(.*\): mend ca_file of this destination"):
                act()


def test_another_name(secure: Secure, authority: Authority) -> None:
    port = secure(served(authority, "elsewhere", address="127.0.0.2"))
    wrong_name = pytest.raises(PermanentFailure, match="certificate is not valid for '127")
    with to(port, tls=tls_context(authority.certificate, None, None)) as channel, wrong_name:
        channel.send(flag())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_receiver_that_wants_to_know_who_calls(
    authority: Authority, stranger: Authority, version: ssl.TLSVersion
) -> None:
    context = served(authority, clients=authority.certificate)
    context.minimum_version = context.maximum_version = version
    received: list[hl7.Message] = []

    def answer(connection: socket.socket) -> None:
        # Blocking, for asyncio hangs up without the alert that says why (it does so in the test after this one).
        with context.wrap_socket(connection, server_side=True) as secured:
            received.append(parse(block(secured)[1:-2]))
            ack = str(received[-1].create_ack()).replace("\r\r", "\r").split("MSA|")[0]
            secured.sendall(f"\x0b{ack}MSA|AA|{received[-1].segment('MSH')[10]}\r\x1c\r".encode())

    with listener(answer) as port:
        with to(port, tls=tls_context(authority.certificate, *authority.issue("hilum"))) as channel:
            assert channel.check()
            channel.send(flag())
        for unknown in ((None, None), stranger.issue("hilum")):
            with to(port, tls=tls_context(authority.certificate, *unknown)) as channel:
                for act in (channel.check, lambda: channel.send(flag())):
                    with pytest.raises(PermanentFailure, match=r"does not trust hilum.*: set certificate and key"):
                        act()
    assert len(received) == 1


def test_a_receiver_that_wants_to_know_who_calls_and_does_not_say_so(
    receiver: MllpReceiver, secure: Secure, authority: Authority
) -> None:
    port = secure(served(authority, clients=authority.certificate))
    with to(port, tls=tls_context(authority.certificate, *authority.issue("hilum"))) as channel:
        assert channel.check()
        channel.send(flag())
    with to(port, tls=tls_context(authority.certificate, None, None)) as channel:
        for act in (channel.check, lambda: channel.send(flag())):
            with pytest.raises(TransientFailure, match="look at its log"):
                act()
    assert len(receiver.messages) == 1


def test_a_receiver_without_tls(receiver: MllpReceiver, authority: Authority) -> None:
    def clear(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"\x0bMSH|^~\\&\r\x1c\r")
        select.select([connection], [], [], 5)

    no_tls = pytest.raises(PermanentFailure, match="does not speak TLS: mend port or tls")
    trusting = tls_context(authority.certificate, None, None)
    with listener(clear) as port, to(port, tls=trusting) as channel, no_tls:
        channel.send(flag())


def test_tls_where_it_was_not_asked_for(secure: Secure, authority: Authority) -> None:
    with to(secure(served(authority)), timeout=2) as channel, pytest.raises(TransientFailure):
        channel.send(flag())


def test_a_key_with_a_password_is_refused_and_not_asked_for(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match="without a password"):
        tls_context(None, *authority.issue("locked", password="secret"))
