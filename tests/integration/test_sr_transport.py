"""Delivery to peers that behave badly, each in its own way; the sender is never held, and says what to mend."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID, BasicTextSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from schemas.errors import PermanentFailure, TransientFailure
from tests import waiting
from tests.unit.notify.flags import STUDY, flag
from worker.notify.association import Peer
from worker.notify.dicom_sr import DicomSr
from worker.notify.sr import LADDER, build_sr
from worker.simulate.pacs import Pacs

eventually = partial(waiting.eventually, seconds=30)

ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0])


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    server = Pacs(tmp_path / "pacs")
    server.start()
    yield server
    server.stop()


def to(port: int, *, timeout: float = 10.0, idle: float = 5.0) -> closing[DicomSr]:
    return closing(
        DicomSr(
            name="pacs",
            peer=Peer(ae_title="PACS", host="127.0.0.1", port=port, calling_ae_title="HILUM"),
            timeout=timeout,
            idle=idle,
        )
    )


@contextmanager
def listener(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A peer that does `behave` with every connection; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peers: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    behave(connection)
                except OSError:
                    return  # the sender went away, as it may

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                peers.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                peers[-1].start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def pdu(connection: socket.socket) -> bytes:
    header = connection.recv(6, socket.MSG_WAITALL)
    if len(header) < 6:
        raise OSError("the sender went away")
    return header + connection.recv(struct.unpack(">L", header[2:])[0], socket.MSG_WAITALL)


def acceptance(request: bytes, *, result: int = 0, max_length: int = 16384) -> bytes:
    """An A-ASSOCIATE-AC that gives every proposed context `result` (PS3.8 9.3.3)."""
    contexts = b""
    offset = 74
    while offset < len(request):
        kind, length = request[offset], struct.unpack(">H", request[offset + 2 : offset + 4])[0]
        if kind == 0x20:
            proposed = request[offset + 4 : offset + 4 + length]
            syntax = proposed[proposed.index(b"\x40\x00") :]
            contexts += struct.pack(">BBHBBBB", 0x21, 0, 4 + len(syntax), proposed[0], 0, result, 0) + syntax
        offset += 4 + length
    name = b"1.2.840.10008.3.1.1.1"
    user = struct.pack(">BBHL", 0x51, 0, 4, max_length)
    uid = b"1.2.3.4"
    user += struct.pack(">BBH", 0x52, 0, len(uid)) + uid
    body = request[6:74] + struct.pack(">BBH", 0x10, 0, len(name)) + name + contexts
    body += struct.pack(">BBH", 0x50, 0, len(user)) + user
    return struct.pack(">BBL", 2, 0, len(body)) + body


# The built-in PACS, behaving well


def test_a_report_is_stored_in_its_study(pacs: Pacs) -> None:
    with to(pacs.port) as channel:
        receipt = channel.send(flag())
    assert receipt.proof == "C-STORE 0x0000"
    (path,) = pacs.stored.values()
    assert path == pacs.folder / STUDY / str(build_sr(flag()).SeriesInstanceUID) / f"{receipt.object_id}.dcm"
    assert dcmread(path).to_json_dict() == build_sr(flag()).to_json_dict()


def test_many_flags_go_over_one_association(pacs: Pacs) -> None:
    opened = []
    pacs._ae._servers[0].bind(evt.EVT_ACCEPTED, opened.append)
    with to(pacs.port) as channel:
        receipts = [channel.send(flag(revision=r)) for r in range(1, 21)]
    assert list(pacs.stored) == [r.object_id for r in receipts]
    assert len(opened) == 1


def test_the_association_is_let_go_when_nothing_is_sent(pacs: Pacs) -> None:
    released = []
    pacs._ae._servers[0].bind(evt.EVT_RELEASED, released.append)
    with to(pacs.port, idle=0.1) as channel:
        channel.send(flag())
        eventually(lambda: len(released) == 1)
        eventually(lambda: not pacs._ae.active_associations)
        channel.send(flag(revision=2))
        eventually(lambda: len(released) == 2)
    assert len(pacs.stored) == 2


def test_closing_releases(pacs: Pacs) -> None:
    released = []
    pacs._ae._servers[0].bind(evt.EVT_RELEASED, released.append)
    with to(pacs.port) as channel:
        channel.send(flag())
        channel.close()
        eventually(lambda: len(released) == 1)
        with pytest.raises(TransientFailure, match="closed"):
            channel.send(flag())


def test_check(pacs: Pacs) -> None:
    with to(pacs.port) as channel:
        said = channel.check()
    assert said == (
        f"PACS@127.0.0.1:{pacs.port} answers C-ECHO and takes Comprehensive SR Storage in Explicit VR Little Endian"
    )


# The ladder


@contextmanager
def taking(folder: Path, *forms: str) -> Iterator[Pacs]:
    """A PACS that accepts these forms alone."""
    server = Pacs(folder, sop_classes=forms)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        ([BasicTextSRStorage, EnhancedSRStorage, ComprehensiveSRStorage], ComprehensiveSRStorage),
        ([BasicTextSRStorage, EnhancedSRStorage], EnhancedSRStorage),
        ([BasicTextSRStorage], BasicTextSRStorage),
    ],
)
def test_the_richest_form_that_is_accepted_is_sent(tmp_path: Path, accepted: list[UID], sent: UID) -> None:
    with taking(tmp_path, *accepted) as pacs, to(pacs.port) as channel:
        assert f"and takes {sent.name} in Explicit VR" in channel.check()
        first = channel.send(flag())
        assert channel.send(flag()) == first
        (path,) = pacs.stored.values()
    assert dcmread(path).SOPClassUID == sent
    assert dcmread(path).to_json_dict() == build_sr(flag(), sent).to_json_dict()


def test_a_pacs_that_has_learnt_a_richer_form_gets_an_object_that_names_the_one_it_has(tmp_path: Path) -> None:
    with taking(tmp_path, BasicTextSRStorage) as pacs, to(pacs.port) as channel:
        first = channel.send(flag())
    with taking(tmp_path, BasicTextSRStorage, ComprehensiveSRStorage) as pacs, to(pacs.port) as channel:
        second = channel.send(
            replace(flag(revision=2, predecessor=1), predecessor_object_id=first.object_id),
        )
        report = dcmread(pacs.stored[second.object_id])
    (before,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert (before.ReferencedSOPClassUID, before.ReferencedSOPInstanceUID) == (BasicTextSRStorage, first.object_id)
    assert report.SOPClassUID == ComprehensiveSRStorage
    assert {path.parent for path in pacs.stored.values()} == {pacs.stored[first.object_id].parent}, "one series"


# A kept association that died


def test_a_pacs_that_was_restarted_in_between_is_found_again(pacs: Pacs) -> None:
    with to(pacs.port) as channel:
        channel.send(flag())
        pacs.stop()
        pacs.start()
        channel.send(flag(revision=2))
    assert len(pacs.stored) == 2


def test_an_association_that_dies_in_the_answer_is_opened_again_once(pacs: Pacs) -> None:
    opened: list[evt.Event] = []
    pacs._ae._servers[0].bind(evt.EVT_ACCEPTED, opened.append)
    with to(pacs.port) as channel:
        channel.send(flag())
        pacs.drop = True
        with pytest.raises(TransientFailure, match=r"aborted the association|closed the connection"):
            channel.send(flag(revision=2))
        assert len(opened) == 2


def test_a_release_by_the_peer_is_no_failure() -> None:
    server = AE("PACS")
    server.add_supported_context(ComprehensiveSRStorage)
    server.network_timeout = 0.2  # then it releases, as archives do with the idle
    server.network_timeout_response = "A-RELEASE"
    stored: list[evt.Event] = []

    def keep(event: evt.Event) -> int:
        stored.append(event)
        return 0x0000

    running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    port = running.socket.getsockname()[1]
    try:
        with to(port) as channel:
            channel.send(flag())
            time.sleep(0.6)
            channel.send(flag(revision=2))
    finally:
        server.shutdown()
    assert len(stored) == 2


# Refusals


@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_pacs_short_of_something_hears_it_again_later(pacs: Pacs, status: int) -> None:
    pacs.answer = status
    with to(pacs.port) as channel:
        with pytest.raises(TransientFailure, match=f"0x{status:04X}"):
            channel.send(flag())
        pacs.answer = 0x0000
        channel.send(flag())
    assert len(pacs.stored) == 1


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC000])
def test_a_pacs_that_will_never_take_it_is_a_case_for_a_person(pacs: Pacs, status: int) -> None:
    pacs.answer = status
    with to(pacs.port) as channel, pytest.raises(PermanentFailure, match=f"0x{status:04X}.*replay"):
        channel.send(flag())


def test_a_warning_is_a_delivery(pacs: Pacs) -> None:
    pacs.answer = 0xB000
    with to(pacs.port) as channel:
        assert channel.send(flag()).proof == "C-STORE 0xB000, stored, elements coerced"


@pytest.mark.parametrize(
    ("rejection", "failure", "words"),
    [
        ((1, 1, 3), PermanentFailure, "does not know the calling AE title HILUM: add it there"),
        ((1, 1, 7), PermanentFailure, "does not answer to the AE title PACS"),
        ((1, 1, 1), PermanentFailure, "rejected the association"),
        ((2, 3, 1), TransientFailure, "no association to spare"),
        ((2, 1, 1), TransientFailure, "rejected the association"),
    ],
)
def test_rejected_associations(rejection: tuple[int, int, int], failure: type[Exception], words: str) -> None:
    def behave(connection: socket.socket) -> None:
        pdu(connection)
        connection.sendall(bytes([3, 0, 0, 0, 0, 4, 0, *rejection]))
        connection.recv(1)

    with listener(behave) as port, to(port) as channel:
        for act in (lambda: channel.send(flag()), channel.check):
            with pytest.raises(failure, match=words):
                act()


def test_a_pacs_that_takes_no_reports_names_the_class_to_enable() -> None:
    server = AE("PACS")
    server.add_supported_context(Verification)
    running = server.start_server(("127.0.0.1", 0), block=False)
    port = running.socket.getsockname()[1]
    try:
        with to(port) as channel:
            for act in (lambda: channel.send(flag()), channel.check):
                with pytest.raises(PermanentFailure, match="have it enabled there") as refused:
                    act()
                for form in LADDER:
                    assert f"{form.name} ({form})" in str(refused.value)
    finally:
        server.shutdown()


def test_a_pacs_that_accepts_no_context_at_all() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(acceptance(pdu(connection), result=3))
        pdu(connection)

    with listener(behave) as port, to(port) as channel, pytest.raises(PermanentFailure, match="have it enabled"):
        channel.send(flag())


def test_a_pacs_of_implicit_vr_alone_is_served_in_it() -> None:
    server = AE("PACS")
    server.add_supported_context(ComprehensiveSRStorage, ImplicitVRLittleEndian)
    stored = []

    def keep(event: evt.Event) -> int:
        stored.append((event.context.transfer_syntax, event.dataset))
        return 0x0000

    running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    port = running.socket.getsockname()[1]
    try:
        with to(port) as channel:
            assert "offers no C-ECHO" in channel.check()
            channel.send(flag())
    finally:
        server.shutdown()
    ((syntax, dataset),) = stored
    assert syntax == ImplicitVRLittleEndian
    assert dataset.to_json_dict() == build_sr(flag()).to_json_dict()


# The network


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    with to(port) as channel:
        for act in (lambda: channel.send(flag()), channel.check):
            with pytest.raises(TransientFailure, match="nothing listens there"):
                act()


def test_a_host_that_has_no_address() -> None:
    channel = DicomSr(
        name="x", peer=Peer(ae_title="PACS", host="no.such.host.invalid", port=104, calling_ae_title="HILUM")
    )
    with closing(channel), pytest.raises(TransientFailure, match="host name is not known"):
        channel.send(flag())


def test_a_stalled_pacs_does_not_hold_the_sender(pacs: Pacs) -> None:
    pacs.stall = 60.0
    with to(pacs.port, timeout=3) as channel:
        with pytest.raises(TransientFailure, match="no answer within 3 s"):
            channel.send(flag())
        pacs.stall = 0.0
        channel.send(flag())
    assert len(pacs.stored) == 1


def test_a_pacs_that_aborts_in_the_middle(pacs: Pacs) -> None:
    pacs.drop = True
    with to(pacs.port) as channel:
        with pytest.raises(TransientFailure, match=r"aborted the association|closed the connection"):
            channel.send(flag())
        pacs.drop = False
        channel.send(flag())
    assert len(pacs.stored) == 1


def silence(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    time.sleep(60)


def drip(connection: socket.socket) -> None:
    """One byte now and then: every read succeeds, and nothing ever comes of it."""
    for byte in acceptance(pdu(connection)):
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def half(connection: socket.socket) -> None:
    connection.sendall(acceptance(pdu(connection))[:50])


def another_protocol(connection: socket.socket) -> None:
    pdu(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def endless(connection: socket.socket) -> None:
    pdu(connection)
    connection.sendall(struct.pack(">BBL", 2, 0, 0xFFFFFFFF))
    connection.recv(1)


def rubbish(connection: socket.socket) -> None:
    pdu(connection)
    connection.sendall(struct.pack(">BBL", 2, 0, 100) + bytes(range(100)))
    connection.recv(1)


def abort(connection: socket.socket) -> None:
    pdu(connection)
    connection.sendall(ABORT)
    connection.recv(1)


def hang_up(connection: socket.socket) -> None:
    pdu(connection)


def accept_then_rubbish(connection: socket.socket) -> None:
    connection.sendall(acceptance(pdu(connection)))
    pdu(connection)
    connection.sendall(struct.pack(">BBLLBB", 4, 0, 6, 2, 1, 3))  # a last command fragment without a command
    connection.recv(1)


def accept_then_abort(connection: socket.socket) -> None:
    connection.sendall(acceptance(pdu(connection)))
    pdu(connection)
    connection.sendall(ABORT)


def accept_then_deaf(connection: socket.socket) -> None:
    connection.sendall(acceptance(pdu(connection)))
    time.sleep(60)


def accept_with_tiny_pdus(connection: socket.socket) -> None:
    connection.sendall(acceptance(pdu(connection), max_length=7))
    time.sleep(60)


@pytest.mark.parametrize(
    "behave",
    [
        silence,
        drip,
        half,
        another_protocol,
        endless,
        rubbish,
        abort,
        hang_up,
        accept_then_rubbish,
        accept_then_abort,
        accept_then_deaf,
        accept_with_tiny_pdus,
    ],
)
def test_peers_that_are_none(behave: Callable[[socket.socket], None]) -> None:
    with listener(behave) as port, to(port, timeout=0.5) as channel:
        for _ in range(2):
            with pytest.raises(TransientFailure):
                channel.send(flag())


def test_closing_from_another_thread_ends_a_send(pacs: Pacs) -> None:
    pacs.stall = 60.0
    failures: list[Exception] = []
    with to(pacs.port, timeout=60) as channel:

        def deliver() -> None:
            try:
                channel.send(flag())
            except TransientFailure as failure:
                failures.append(failure)

        sender = threading.Thread(target=deliver)
        sender.start()
        eventually(lambda: bool(pacs._ae.active_associations))
        time.sleep(0.2)
        channel.close()
        sender.join(30)
        assert not sender.is_alive()
    (failure,) = failures
    assert "closed" in str(failure)


def test_no_thread_is_left_behind(pacs: Pacs) -> None:
    with to(pacs.port, idle=60) as channel:
        channel.send(flag())
    pacs.stop()
    eventually(lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)])
