"""The HL7 port as its peers see it: python-hl7's client sends, hl7apy reads the answers; then those who misbehave."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import hl7
import pytest
import sqlalchemy as sa
from hl7.client import MLLPClient
from hl7apy.parser import parse_message

from schemas.decision import Urgency
from schemas.errors import ConfigurationError, RecordError
from schemas.outcome import Audience
from schemas.tables import MessageRow, OrderRow, PatientRow
from tests import waiting
from tests.contract.record.given import Record, read
from tests.contract.record.test_record_context import film
from tests.orthanc import free_ports
from worker.corridor.bell import Bell
from worker.corridor.context import Hearing
from worker.decide.routing import recipients
from worker.receive.hl7_content import Rules
from worker.receive.hl7_listener import Hl7Listener, Hl7ListenerConfig, tls_server
from worker.record.context import Context
from worker.record.database import Database
from worker.record.rejections import Rejections
from worker.record.second_look import SecondLooks

until = partial(waiting.eventually, seconds=20.0)

HILUM = Path(sys.executable).with_name("hilum")
ROUTE = partial(recipients, [Audience(name="pacs", when="analysed"), Audience(name="tasks", keeps_tasks=True)])
PID = "PID|1||P1^^^^MR||Phantom^Chest"


def message(kind: str, *segments: str, control: str = "1", version: str = "2.5.1") -> str:
    head = f"MSH|^~\\&|RIS|HOSP|HILUM|X|20260301113000||{kind}|{control}|P|{version}||||||UNICODE UTF-8"
    return "\r".join((head, *segments, ""))


def order(accession: str = "A1", priority: str = "S", control: str = "1") -> str:
    obr = f"OBR|1||{accession}|CXR" + 14 * "|" + accession + 9 * "|" + f"^^^^^{priority}"
    return message("ORM^O01^ORM_O01", PID, f"ORC|NW||{accession}", obr, control=control)


def report(attached: int = 0, control: str = "1") -> str:
    """A signed one of the film, with so many bytes of a document in it."""
    obr = "OBR|1||R1|CXR" + 14 * "|" + "A1" + 7 * "|" + "F"
    document = "OBX|2|ED|PDF||^application^pdf^Base64^" + attached * "A"
    return message("ORU^R01^ORU_R01", PID, obr, "OBX|1|TX|IMP||Lungs clear|||N|||F", document, control=control)


class Port:
    """The listener on a loopback port, before a record of its own."""

    def __init__(self, folder: Path, config: Hl7ListenerConfig) -> None:
        database = Database(f"sqlite:///{folder}/hilum.db")
        database.migrate()
        self.record = Record(database, "")
        self.news = Bell()
        self.rejections = Rejections(database)
        self.hearing = Hearing(
            Context(database), self.rejections, Rules(), ROUTE, Bell(), self.news, lambda: datetime.now(UTC)
        )
        self.listener = Hl7Listener(config, self.hearing, self.rejections.add)
        self.listener.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.listener.port

    def ask(self, text: str) -> hl7.Message:
        """By python-hl7's client, on a connection of its own."""
        with MLLPClient(*self.address) as client:
            return hl7.parse(client.send_message(text).strip(b"\x0b\x1c\r").decode())

    def turned_away(self) -> list[str]:
        return [kind.what for kind in self.rejections.recent(10)]

    def close(self) -> None:
        self.listener.stop()
        self.record.database.close()


QUICK = Hl7ListenerConfig(
    port=0, max_connections=4, max_message=64 << 10, message_seconds=2.0, idle_seconds=30.0, accept=["127.0.0.0/8"]
)
Opened = Callable[..., Port]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:

        def open_port(**changes: object) -> Port:
            port = Port(tmp_path, replace(QUICK, **changes))  # type: ignore[arg-type]
            stack.callback(port.close)
            return port

        yield open_port


def raw(port: Port, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(port.address, timeout=20, source_address=(source, 0))
    connection.settimeout(20)
    return connection


def framed(text: str | bytes) -> bytes:
    return b"\x0b" + (text.encode() if isinstance(text, str) else text) + b"\x1c\r"


def answer(connection: socket.socket) -> bytes:
    """The next frame; what came of it where the connection ends."""
    received = b""
    while not received.endswith(b"\x1c\r"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return received


def code(encoded: bytes) -> str:
    return encoded.split(b"MSA|")[1][:2].decode() if b"MSA|" in encoded else ""


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


# A hospital's day


def test_an_order_a_correction_and_a_report_on_one_connection(opened: Opened) -> None:
    port = opened()
    record = port.record
    record.receive(1, context=film())
    with MLLPClient(*port.address) as client:

        def say(text: str) -> str:
            return str(hl7.parse(client.send_message(text).strip(b"\x0b\x1c\r").decode()).segment("MSA")[1])

        assert say(order()) == "AA"
        job = record.claim(at=datetime.now(UTC))
        assert job.order_urgency is Urgency.STAT
        record.conclude(job, read(0.9), at=datetime.now(UTC))
        assert record.worklist.rows(10)[0].ordered == "ordered STAT"

        heard = port.news.rung
        assert say(message("ADT^A40^ADT_A39", "EVN||20260301", PID.replace("P1", "P2"), "MRG|P1", control="2")) == "AA"
        assert port.news.rung > heard, "couriers are woken"
        assert record.worklist.rows(10)[0].patient_id == "P2"
        assert record.worklist.rows(10)[0].revision == 2

        signed = ("OBR|1||R1|CXR" + 14 * "|" + "A1" + 7 * "|" + "F", "OBX|1|TX|IMP||Lungs clear|||N|||F")
        assert say(message("ORU^R01^ORU_R01", PID.replace("P1", "P2"), *signed, control="3")) == "AA"
    assert record.worklist.rows(10) == []
    assert [row.study_uid for row in SecondLooks(record.database).rows(10)] == ["1.2.3.1"]


def test_the_same_message_again_is_accepted_again_and_changes_nothing(opened: Opened) -> None:
    port = opened()
    for _ in range(3):
        assert str(port.ask(order()).segment("MSA")[1]) == "AA"
    rows = port.record.database.read(lambda c: c.execute(sa.select(OrderRow)).all())
    assert len(rows) == 1


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5.1", "2.6"])
@pytest.mark.parametrize(("kind", "expected"), [("ADT^A08^ADT_A01", "AA"), ("ADT^A01^ADT_A01", "AR")])
def test_answers_are_whole_messages_to_an_independent_reader(
    opened: Opened, kind: str, expected: str, version: str
) -> None:
    port = opened()
    with MLLPClient(*port.address) as client:
        said = client.send_message(message(kind, "EVN||20260301", PID, version=version)).strip(b"\x0b\x1c\r")
    ack = parse_message(said.decode(), find_groups=False)
    assert ack.msh.msh_9.msh_9_1.value == "ACK"
    assert ack.msh.msh_12.value == version
    assert (ack.msa.msa_1.value, ack.msa.msa_2.value) == (expected, "1")
    assert bool(ack.err) is (expected == "AR")


def test_who_sends_what_is_not_taken_is_shown_with_the_mend(opened: Opened) -> None:
    port = opened()
    assert str(port.ask(message("SIU^S12", PID)).segment("MSA")[1]) == "AR"
    (kind,) = port.rejections.recent(10)
    assert (kind.sender.address, kind.mend) == ("127.0.0.1", "mend MSH-1-9 at the sender")


def test_an_order_known_by_its_placer_alone_waits_for_its_accession_number(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = opened()
    port.record.receive(1, context=film())
    assert str(port.ask(message("ORM^O01", PID, "ORC|NW|PL1|||||^^^^^S")).segment("MSA")[1]) == "AA"
    assert "studies=0 told=0 no-verdict=0 no-accession=1" in caplog.text, "and the log says that no study has it yet"
    caplog.clear()
    named = ("ORC|SC|PL1", "OBR|1|PL1||CXR" + 14 * "|" + "A1")
    assert str(port.ask(message("ORM^O01", PID, *named, control="2")).segment("MSA")[1]) == "AA"
    assert "studies=1 told=0 no-verdict=0 no-accession=0" in caplog.text
    assert port.record.claim(at=datetime.now(UTC)).order_urgency is Urgency.STAT


def test_more_merges_than_are_recorded_in_one_step_are_refused_whole_with_the_mend(opened: Opened) -> None:
    port = opened()
    merges = [segment for n in range(201) for segment in (f"PID|{n}||N{n}", f"MRG|O{n}")]
    said = port.ask(message("ADT^A40", *merges))
    assert [str(said.segment("MSA")[1]), str(said.segment("ERR")[3][0][0])] == ["AR", "104"]
    assert port.record.database.read(lambda c: c.execute(sa.select(PatientRow)).all()) == []
    (kind,) = port.rejections.recent(10)
    assert (kind.what, kind.mend) == (
        "the message names too many patients",
        "let the sender say it in several messages",
    )


def test_a_record_that_is_away_is_answered_as_a_passing_fault(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    port = opened()
    take = Context.take

    def away(*_: object) -> None:
        raise RecordError("database: away")

    monkeypatch.setattr(Context, "take", away)
    said = port.ask(order())
    assert str(said.segment("MSA")[1]) == "AE"
    assert str(said.segment("ERR")[3][0][0]) == "207"
    monkeypatch.setattr(Context, "take", take)
    assert str(port.ask(order()).segment("MSA")[1]) == "AA", "the same message, sent again"


def test_logs_hold_no_patient(
    opened: Opened, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    port = opened()
    port.ask(order("SECRET"))
    port.ask(message("ADT^A08", PID))
    port.ask(message("ADT^A99", PID))

    def break_down(*_: object) -> None:
        raise ValueError("Phantom^Chest is not to be printed")

    monkeypatch.setattr(Context, "take", break_down)
    assert str(port.ask(message("ADT^A08", PID, control="9")).segment("MSA")[1]) == "AE"
    for secret in ("SECRET", "Phantom", "P1"):
        assert secret not in caplog.text


# Those who misbehave


@pytest.mark.parametrize("garbage", [b"", b"x", b"MSH", b"\x00" * 1000, b"MSH|^~\\&|", b"\xff\xfeM\x00S\x00H\x00"])
def test_garbage_in_a_frame_is_rejected_and_the_connection_goes_on(opened: Opened, garbage: bytes) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(garbage))
        assert code(answer(connection)) == "AR"
        connection.sendall(framed(order()))
        assert code(answer(connection)) == "AA"


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", order().encode()])
def test_what_is_no_frame_is_hung_up_on(opened: Opened, noise: bytes) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(noise)
        assert is_closed(connection)
    assert str(port.ask(order()).segment("MSA")[1]) == "AA"


def test_frames_in_pieces_and_several_at_once(opened: Opened) -> None:
    port = opened()
    with raw(port) as connection:
        for byte in framed(order(control="1")):
            connection.sendall(bytes([byte]))
        assert code(answer(connection)) == "AA"
        connection.sendall(framed(order("A2", control="2")) + b"\r\n" + framed(order("A3", control="3"))[:-1])
        received = b""
        while received.count(b"\x1c\r") < 2:
            received += connection.recv(65536)
        assert received.count(b"MSA|AA|") == 2


def test_a_message_that_was_given_up_in_the_middle_is_not_mixed_with_the_next(opened: Opened) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(order("LOST"))[:60])
        connection.sendall(framed(order("A2", control="2")))
        said = answer(connection)
    assert b"MSA|AA|2" in said
    rows = port.record.database.read(lambda c: c.scalars(sa.select(OrderRow.accession_number)).all())
    assert rows == ["A2"]


def test_a_message_without_an_end_is_given_up(opened: Opened) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(order())[:-2])
        assert is_closed(connection)
    with raw(port) as connection:
        connection.sendall(framed(order())[:-2])
    until(lambda: port.listener.connections == 0)
    assert port.record.database.read(lambda c: c.execute(sa.select(OrderRow)).all()) == []


def test_a_slow_loris_has_its_seconds_and_no_more(opened: Opened) -> None:
    port = opened()
    began = time.monotonic()
    with raw(port) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.sendall(b"\x0b")
        while time.monotonic() - began < 15:
            connection.sendall(b"M")
            time.sleep(0.1)
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if connection.recv(1) == b"":
                    break
            connection.settimeout(20)
    assert 1.5 < time.monotonic() - began < 10


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_a_report_that_is_too_long_is_refused_by_name_and_none_of_it_is_acted_upon(
    opened: Opened, version: str
) -> None:
    port = opened()
    port.record.receive(1, context=film())
    port.record.conclude(port.record.claim(at=datetime.now(UTC)), read(0.9), at=datetime.now(UTC))
    with MLLPClient(*port.address) as client:
        said = client.send_message(report(64 << 10).replace("|2.5.1|", f"|{version}|")).strip(b"\x0b\x1c\r").decode()
        ack = parse_message(said, find_groups=False)
        assert (ack.msa.msa_1.value, ack.msa.msa_2.value) == ("AR", "1")
        assert "104" in ack.err.value
        words = ack.err.err_8.value if version == "2.5.1" else ack.msa.msa_3.value
        assert (
            words == "the message is longer than 64 KiB: send less, or raise max_message_kib of [hl7] at the receiver"
        )
        assert len(port.record.worklist.rows(10)) == 1, "its reading task is open"
        assert port.record.database.read(lambda c: c.execute(sa.select(MessageRow)).all()) == []
        (kind,) = port.rejections.recent(10)
        assert (kind.what, kind.mend) == ("message too long", "raise max_message_kib of [hl7]; it is 64 now")
        said = client.send_message(report(60 << 10)).strip(b"\x0b\x1c\r").decode()
        assert str(hl7.parse(said).segment("MSA")[1]) == "AA", "the same with less in it, on the same connection"
    assert port.record.worklist.rows(10) == []


def test_the_limit_is_met_to_the_byte(opened: Opened) -> None:
    port = opened()
    room = (64 << 10) - len(report(control="AA"))
    with raw(port) as connection:
        for attached, expected in ((room, "AA"), (room + 1, "AR")):
            connection.sendall(framed(report(attached, control=expected)))
            assert f"MSA|{expected}|{expected}".encode() in answer(connection)


@pytest.mark.parametrize("gives_up", [True, False])
def test_a_message_that_is_too_long_and_never_ends_is_refused_when_its_time_is_up(
    opened: Opened, gives_up: bool
) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(report(128 << 10))[:-2])
        if gives_up:
            connection.shutdown(socket.SHUT_WR)
        assert b"MSA|AR|1" in answer(connection)
        assert is_closed(connection)


@pytest.mark.parametrize("before", [40 << 10, 128 << 10])
def test_what_was_given_up_does_not_count_towards_the_length_of_what_follows(opened: Opened, before: int) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(report(before))[:-2])
        again = framed(report(40 << 10, control="2"))
        connection.sendall(again[:-2])
        time.sleep(0.2)
        connection.sendall(again[-2:])
        assert b"MSA|AA|2" in answer(connection)


def test_a_segment_of_a_hundred_megabytes_goes_by_and_is_not_kept(opened: Opened) -> None:
    port = opened(message_seconds=60.0)
    with raw(port) as connection:
        tracemalloc.start()
        connection.sendall(b"\x0b" + message("ADT^A08", "PID|1||").rstrip("\r").encode())
        for _ in range(1600):
            connection.sendall(b"P" * 65536)
        connection.sendall(b"\x1c\r")
        assert code(answer(connection)) == "AR"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20
        connection.sendall(framed(order(control="2")))
        assert code(answer(connection)) == "AA"


def test_a_connection_that_waits_keeps_nothing_of_its_last_message(opened: Opened) -> None:
    port = opened(max_message=16 << 20)
    with raw(port) as connection:
        connection.sendall(framed(order()))
        assert code(answer(connection)) == "AA"
        encoded = framed(report(8 << 20))
        tracemalloc.start()
        connection.sendall(encoded)
        assert code(answer(connection)) == "AA"
        until(lambda: tracemalloc.get_traced_memory()[0] < 4 << 20)
        assert tracemalloc.get_traced_memory()[1] > 8 << 20, "it was there"
        tracemalloc.stop()


def test_more_connections_than_are_allowed_are_turned_away(opened: Opened) -> None:
    port = opened()
    connections = [raw(port, f"127.0.0.{number}") for number in range(1, 5)]
    until(lambda: port.listener.connections == 4)
    with raw(port, "127.0.0.5") as surplus:
        assert is_closed(surplus)
    assert "limit of 4 connections reached" in port.turned_away()
    for connection in connections:
        connection.close()
    until(lambda: port.listener.connections == 0)
    assert str(port.ask(order()).segment("MSA")[1]) == "AA"


def test_one_address_leaves_half_of_the_connections_to_others(opened: Opened) -> None:
    port = opened()
    slow = [raw(port) for _ in range(2)]
    until(lambda: port.listener.connections == 2)
    with raw(port) as surplus:
        assert is_closed(surplus)
    (kind,) = port.rejections.recent(10)
    assert (kind.sender.address, kind.what, kind.mend) == (
        "127.0.0.1",
        "limit of 2 connections from one address reached, half of max_connections",
        "let the sender close what it does not use, or raise max_connections of [hl7]",
    )
    with raw(port, "127.0.0.2") as other:
        other.sendall(framed(order()))
        assert code(answer(other)) == "AA"
    for connection in slow:
        connection.close()
    until(lambda: port.listener.connections == 0)
    assert str(port.ask(order(control="2")).segment("MSA")[1]) == "AA"


def test_a_port_for_one_connection_takes_one(opened: Opened) -> None:
    port = opened(max_connections=1)
    assert str(port.ask(order()).segment("MSA")[1]) == "AA"


def test_a_hundred_strangers_at_once_do_not_disturb_who_is_in(opened: Opened) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(order(control="0")))
        assert code(answer(connection)) == "AA"
        strangers = [raw(port) for _ in range(100)]
        for number in range(1, 6):
            connection.sendall(framed(order(control=str(number))))
            assert code(answer(connection)) == "AA"
        for stranger in strangers:
            stranger.close()


def test_peers_that_reset_or_shut_one_half_leave_nothing_behind(opened: Opened) -> None:
    port = opened()
    with raw(port) as connection:
        connection.sendall(framed(order()))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with raw(port) as connection:
        connection.sendall(framed(order(control="2")))
        connection.shutdown(socket.SHUT_WR)
        assert code(answer(connection)) == "AA"
        assert is_closed(connection)
    until(lambda: port.listener.connections == 0)


def test_a_peer_that_does_not_take_its_answers_is_hung_up_on(opened: Opened) -> None:
    port = opened()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(1.0)
    connection.connect(port.address)
    with connection, contextlib.suppress(OSError):
        for _ in range(200_000):
            connection.sendall(50 * framed("x"))
    until(lambda: port.listener.connections == 0)


def test_an_address_that_is_not_on_the_list_is_shown_with_the_mend(opened: Opened) -> None:
    port = opened(accept=["192.0.2.0/24"])
    with raw(port) as connection:
        assert is_closed(connection)
    (kind,) = port.rejections.recent(10)
    assert (kind.what, kind.mend) == ("address not allowed", 'add "127.0.0.1" to accept under [hl7]')


def test_stop_lets_a_message_finish_and_hangs_up_on_the_silent(opened: Opened) -> None:
    port = opened()
    silent = raw(port)
    with raw(port) as connection:
        encoded = framed(order())
        connection.sendall(encoded[:40])
        until(lambda: port.listener.connections == 2)
        time.sleep(0.2)
        stopping = threading.Thread(target=port.listener.stop)
        stopping.start()
        time.sleep(0.2)
        connection.sendall(encoded[40:])
        assert code(answer(connection)) == "AA"
        stopping.join(10)
        assert not stopping.is_alive()
        assert is_closed(silent)
    silent.close()


def test_a_port_that_is_taken_is_said_so(opened: Opened, tmp_path: Path) -> None:
    port = opened()
    with pytest.raises(ConfigurationError, match="hl7: cannot listen on"):
        Hl7Listener(replace(QUICK, port=port.listener.port), port.hearing, print).start()
    with pytest.raises(ConfigurationError, match=r"hl7\.accept"):
        Hl7Listener(replace(QUICK, accept=["nowhere"]), port.hearing, print)


# TLS


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """One that signs itself, by the openssl command."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


def test_tls_with_callers_that_are_known_by_their_certificate(opened: Opened, tmp_path: Path) -> None:
    (ours, our_key), (theirs, their_key) = certificate(tmp_path, "ours"), certificate(tmp_path, "theirs")
    port = opened(tls=tls_server(ours, our_key, theirs))
    client = ssl.create_default_context(cafile=str(ours))
    client.load_cert_chain(theirs, their_key)
    with raw(port) as plain, client.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(framed(order()))
        assert code(answer(connection)) == "AA"
        connection.sendall(framed(order(control="2")))
        assert code(answer(connection)) == "AA"
    with raw(port) as plain:
        plain.sendall(framed(order()))
        answer_in_the_clear = b""
        with contextlib.suppress(ConnectionError):
            answer_in_the_clear = plain.recv(65536)
        assert b"MSA" not in answer_in_the_clear
    until(lambda: "no TLS" in port.turned_away())
    stranger = ssl.create_default_context(cafile=str(ours))
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        raw(port) as plain,
        stranger.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(framed(order()))
        if not connection.recv(1):
            raise ConnectionError("hung up on")


def test_faults_of_the_certificates_are_named_with_their_keys(tmp_path: Path) -> None:
    ours, key = certificate(tmp_path, "ours")
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"hl7\.certificate"):
        tls_server(tmp_path / "missing", None, None)
    with pytest.raises(ConfigurationError, match=r"hl7\.certificate"):
        tls_server(tmp_path / "text", key, None)
    with pytest.raises(ConfigurationError, match=r"hl7\.ca_file"):
        tls_server(ours, key, tmp_path / "text")


# The process


@pytest.mark.timeout(600)
def test_killed_at_random_moments_nothing_that_was_accepted_is_lost(tmp_path: Path) -> None:
    dicom, port = free_ports(2)
    config = tmp_path / "hilum.toml"
    config.write_text(
        f'[dicom]\nport = {dicom}\n[hl7]\nenabled = true\nport = {port}\naccept = ["127.0.0.1"]\n'
        f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n[spool]\npath = "{tmp_path}/spool"\nwatermark_mib = 0\n'
    )
    subprocess.run([HILUM, "migrate", "--config", config], check=True, capture_output=True)
    accepted: set[str] = set()
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    while not stop.is_set():
                        connection.sendall(framed(order(f"A{number}", control=str(number))))
                        if code(answer(connection)) != "AA":
                            break
                        accepted.add(f"A{number}")
                        number += 1
            except OSError:
                time.sleep(0.05)

    chance = random.Random(4)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(3):
            before = len(accepted)
            process = subprocess.Popen(
                [HILUM, "serve", "--only", "receive", "--config", config],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            until(lambda before=before: len(accepted) > before + 5, seconds=120)
            time.sleep(chance.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        stop.set()
        sender.join(30)
    database = Database(f"sqlite:///{tmp_path}/hilum.db")
    found = database.read(lambda c: c.scalars(sa.select(OrderRow.accession_number)).all())
    database.close()
    assert set(found) >= accepted
    assert len(found) == len(set(found)), "and what was sent again is there once"
