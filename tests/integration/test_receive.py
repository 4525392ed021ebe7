"""The DICOM port over real sockets: dcmtk, pynetdicom, and a peer that misbehaves."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from schemas.decision import Urgency
from schemas.errors import ConfigurationError, RecordError, SpoolFull
from schemas.identity import Sender
from schemas.rejection import Rejection
from tests import waiting
from tests.integration.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    DX,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_RP,
    VERIFICATION,
    RawPeer,
    associate_rq,
    command,
    encode,
    film,
    pdu,
    pdv,
    store_rq,
)
from worker.ports import Incoming, SpooledFile
from worker.receive import transport
from worker.receive.access import Caller, LocalAE
from worker.receive.head import Head
from worker.receive.listener import ExtraHandler, Listener, ListenerConfig
from worker.spool.local import LocalSpool

eventually = partial(waiting.eventually, seconds=20)

# What the decoders of the requirements can decode.
SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
]
HILUM = LocalAE(ae_title="HILUM")


@dataclass
class Port:
    """A listener with everything around it that the corridor would be."""

    spool: LocalSpool
    listener: Listener = field(init=False)
    taken: list[tuple[Head, Sender, SpooledFile, Urgency]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    before: Callable[[], object] = lambda: None  # runs in intake, before the commit
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def intake(self, head: Head, sender: Sender, incoming: Incoming, order_urgency: Urgency) -> None:
        self.before()
        self.taken.append((head, sender, incoming.commit(head.instance), order_urgency))

    @property
    def number(self) -> int:
        return self.listener.port

    @property
    def uids(self) -> list[str]:
        return [head.instance.sop_uid for head, *_ in self.taken]

    def unfinished(self) -> list[Path]:
        return list(self.spool.incoming.iterdir())


Open = Callable[..., Port]


@pytest.fixture
def open_port(tmp_path: Path) -> Iterator[Open]:
    ports: list[Port] = []

    def opened(
        *, local_aes: tuple[LocalAE, ...] = (HILUM,), extra: tuple[ExtraHandler, ...] = (), **config: Any
    ) -> Port:
        port = Port(LocalSpool(tmp_path / f"spool{len(ports)}"))
        port.listener = Listener(
            ListenerConfig(host="127.0.0.1", port=0, local_aes=local_aes, **config),
            SYNTAXES,
            port.spool,
            port.intake,
            port.rejections.append,
            extra_handlers=extra,
            clock=lambda: port.now,
        )
        port.listener.start()
        ports.append(port)
        return port

    yield opened
    for port in ports:
        port.listener.stop(0.0)


@pytest.fixture
def port(open_port: Open) -> Port:
    return open_port()


def resources() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def nothing_lasting() -> Iterator[Callable[[], None]]:
    """Call it with the port open and idle: at the end of the test threads and descriptors are as they were then."""
    baseline: list[tuple[int, int]] = []
    yield lambda: baseline.append(resources())
    eventually(lambda: resources() <= baseline[0])
    assert all(now <= then for now, then in zip(resources(), baseline[0], strict=True))


def run(*command_line: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command_line], capture_output=True, text=True, timeout=120, check=False)


# real senders


def test_dcmtk_echoes(port: Port) -> None:
    assert run("/usr/bin/echoscu", "-aec", "HILUM", "127.0.0.1", str(port.number)).returncode == 0


PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}


@pytest.mark.parametrize("syntax", PROPOSE)
def test_real_films_in_every_syntax_by_storescu(port: Port, films: Path, syntax: str) -> None:
    sent = _whole_films(films, syntax)
    result = run("/usr/bin/storescu", "-R", PROPOSE[syntax], "-aec", "HILUM", "127.0.0.1", str(port.number), *sent)
    assert result.returncode == 0, result.stderr
    assert len(port.taken) == len(sent)
    _assert_same(port, sent, syntax)


def test_a_real_film_in_a_syntax_that_storescu_cannot_name(port: Port, films: Path) -> None:
    syntax = "1.2.840.10008.1.2.4.57"
    sent = _whole_films(films, syntax)
    result = run("/usr/bin/dcmsend", "-dn", "-aec", "HILUM", "127.0.0.1", str(port.number), *sent)
    assert result.returncode == 0, result.stderr
    _assert_same(port, sent, syntax)


def test_every_whole_film_in_one_call(port: Port, films: Path) -> None:
    sent = [path for syntax in (*PROPOSE, "1.2.840.10008.1.2.4.57") for path in _whole_films(films, syntax)]
    result = run("/usr/bin/dcmsend", "-dn", "-aec", "HILUM", "127.0.0.1", str(port.number), *sent)
    assert result.returncode == 0, result.stderr
    assert len(port.taken) == len(sent)
    assert port.unfinished() == []


@pytest.mark.filterwarnings("ignore")
def test_each_malformed_film_is_taken_or_answered_clearly(port: Port, films: Path) -> None:
    for path in sorted((films / "dicom" / "malformed").iterdir()):
        before = len(port.taken)
        result = run(
            "/usr/bin/dcmsend", "-v", "-dn", "-nuc", "-aec", "HILUM", "127.0.0.1", str(port.number), "+f", path
        )
        if len(port.taken) == before:
            said = result.stdout + result.stderr
            assert any(words in said for words in ("0xC0", "0xc0", "CannotUnderstand", "Refused", "E: ", "F: ")), said
    assert port.unfinished() == []
    assert run("/usr/bin/echoscu", "-aec", "HILUM", "127.0.0.1", str(port.number)).returncode == 0


# One has an odd fragment length and the other no usable UID; both stop at the sender.
DCMTK_CANNOT_SEND = {"fo-dicom__GH364.dcm", "fo-dicom__LEADTOOLS_FLOWERS-24-RGB-JpegLossy.dcm"}


def _whole_films(films: Path, syntax: str) -> list[Path]:
    """Films of `syntax` that say what they are; those of `malformed` have a test of their own."""
    found = []
    for path in sorted((films / "dicom").glob("*/*.dcm")):
        if path.parent.name != "malformed":
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            if ds.file_meta.TransferSyntaxUID == syntax and path.name not in DCMTK_CANNOT_SEND:
                found.append(path)
    assert found, f"no real film in {syntax}"
    return found


@pytest.mark.filterwarnings("ignore")
def _assert_same(port: Port, sent: list[Path], syntax: str) -> None:
    stored = {head.instance.sop_uid: file for head, _, file, _ in port.taken}
    for path in sent:
        original = pydicom.dcmread(path)
        kept = pydicom.dcmread(port.spool.path_of(stored[original.SOPInstanceUID].path))
        assert kept.file_meta.TransferSyntaxUID == syntax
        for keyword in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"):
            assert kept.get(keyword) == original.get(keyword)
        # dcmtk makes an odd length even, as the standard asks
        assert kept.get("PixelData", b"").startswith(original.get("PixelData", b""))


def test_pynetdicom_sends_and_many_films_share_an_association(port: Port) -> None:
    ae = AE("SCU")
    ae.add_requested_context(DX, EXPLICIT)
    ae.add_requested_context(VERIFICATION, IMPLICIT)
    assoc = ae.associate("127.0.0.1", port.number, ae_title="HILUM", max_pdu=16384)
    assert assoc.is_established
    for n in range(20):
        assert assoc.send_c_store(_file(f"1.2.3.{n}")).Status == 0x0000
        assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    assert len(port.taken) == 20


def _file(sop_uid: str) -> Dataset:
    ds = film(sop_uid)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    return ds


# what is acknowledged, and what is not


def test_the_bytes_at_rest_are_the_bytes_as_sent(port: Port) -> None:
    sent = film("1.2.3", pixels=os.urandom(3_000_000))
    with RawPeer(port.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.store(sent, fragment=16378) == 0x0000
        assert peer.release()[0] == RELEASE_RP
    ((head, sender, file, urgency),) = port.taken
    raw = port.spool.path_of(file.path).read_bytes()
    assert raw.endswith(encode(sent))
    assert pydicom.dcmread(port.spool.path_of(file.path)) == sent
    assert head.context.patient_name == "Phantom^Chest"
    assert sender == Sender(calling_ae="RAW", called_ae="HILUM", address="127.0.0.1")
    assert urgency is Urgency.ROUTINE


def test_success_comes_after_intake_and_not_before(port: Port) -> None:
    may_go_on = threading.Event()
    port.before = lambda: may_go_on.wait(20)
    with RawPeer(port.number) as peer:
        peer.associate()
        peer.send_store(film("1.2.3"))
        peer.connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.receive()
        assert port.taken == []
        peer.connection.settimeout(20)
        may_go_on.set()
        assert peer.response().Status == 0x0000
        assert port.uids == ["1.2.3"]


def test_the_same_film_again_comes_to_the_same_file_and_another_version_does_not(port: Port) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        for pixels in (b"ab", b"ab", b"cd"):
            assert peer.store(film("1.2.3", pixels=pixels)) == 0x0000
    first, again, other = (file.path for _, _, file, _ in port.taken)
    assert first == again != other
    assert port.spool.path_of(first).is_file()
    assert port.spool.path_of(other).is_file()


@pytest.mark.parametrize("cut", ["abort", "close", "reset"])
def test_what_was_acknowledged_stays_and_what_was_in_flight_goes(
    port: Port, cut: str, nothing_lasting: Callable[[], None]
) -> None:
    nothing_lasting()
    with RawPeer(port.number) as peer:
        peer.associate()
        assert peer.store(film("1.2.3")) == 0x0000
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.4"))))
        peer.send(pdu(P_DATA, pdv(1, 0, encode(film("1.2.4", pixels=bytes(600_000)))[:500_000])))
        eventually(lambda: len(port.unfinished()) == 1)
        if cut == "abort":
            peer.abort()
        elif cut == "reset":
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.connection.close()
        else:
            peer.connection.close()
        eventually(lambda: port.unfinished() == [])
    assert port.uids == ["1.2.3"]


@pytest.mark.parametrize("sent", [6, 12, 500, 300_000])
def test_an_abort_between_two_fragments_is_heard_at_once(port: Port, sent: int) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.4"))))
        peer.send(pdu(P_DATA, pdv(1, 0, encode(film("1.2.4", pixels=bytes(600_000)))[:sent])))
        eventually(lambda: len(port.unfinished()) == 1)
        peer.abort()  # and waits for us to close, as the standard has it
        assert peer.receive()[0] == 0
    eventually(lambda: port.unfinished() == [])


def test_a_disk_that_is_full_is_told_and_the_next_film_is_taken(port: Port) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        port.spool._watermark_bytes = 1 << 62
        peer.send_store(film("1.2.3", pixels=bytes(400_000)))
        response = peer.response()
        assert response.Status == 0xA700
        assert "watermark" in response.ErrorComment
        port.spool._watermark_bytes = 0
        assert peer.store(film("1.2.3", pixels=bytes(400_000))) == 0x0000


@pytest.mark.parametrize(
    ("error", "status"),
    [(RecordError("away"), 0xA700), (SpoolFull("full"), 0xA700), (RuntimeError("a bug"), 0xC001), (KeyError(), 0xC001)],
)
def test_an_error_behind_the_door_is_no_success_and_the_association_lives(
    port: Port, error: Exception, status: int
) -> None:
    def fail() -> None:
        raise error

    with RawPeer(port.number) as peer:
        peer.associate()
        port.before = fail
        assert peer.store(film("1.2.3")) == status
        port.before = lambda: None
        assert peer.store(film("1.2.4")) == 0x0000
    assert port.uids == ["1.2.4"]
    assert port.unfinished() == []


@pytest.mark.parametrize(
    ("sop_class", "sop_uid", "status"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.3", 0xA900),
        (DX, "1.2.4", 0xC000),
        (DX, "../../../etc/passwd", 0xC000),
    ],
)
def test_a_command_set_that_does_not_fit_the_data_set(port: Port, sop_class: str, sop_uid: str, status: int) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq(sop_uid, sop_class=sop_class))))
        peer.send(pdu(P_DATA, pdv(1, LAST, encode(film("1.2.3")))))
        assert peer.response().Status == status
        assert peer.store(film("1.2.3")) == 0x0000
    assert len([path for path in port.spool.root.rglob("*") if path.is_file()]) == 1


def test_a_store_without_a_data_set_is_answered(port: Port) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.3", has_data=False))))
        assert peer.response().Status == 0xC000
        assert peer.store(film("1.2.3")) == 0x0000


# however it is cut into pieces


@pytest.mark.parametrize("fragment", [1, 2, 7, 1000])
def test_fragments_of_any_size(port: Port, fragment: int) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        assert peer.store(film("1.2.3"), fragment=fragment) == 0x0000
        assert peer.store(film("1.2.4"), fragment=100_000) == 0x0000
    for (_, _, file, _), sop_uid in zip(port.taken, ("1.2.3", "1.2.4"), strict=True):
        assert port.spool.path_of(file.path).read_bytes().endswith(encode(film(sop_uid)))


@pytest.mark.parametrize("step", [1, 11, 4096])
def test_a_network_that_delivers_in_small_pieces(port: Port, step: int) -> None:
    raw = encode(film("1.2.3", pixels=bytes(4000)))
    stream = (
        pdu(P_DATA, pdv(1, COMMAND, store_rq("1.2.3")[:20]) + pdv(1, COMMAND | LAST, store_rq("1.2.3")[20:]))
        # two fragments in one PDU, an empty one, and an empty last one
        + pdu(P_DATA, pdv(1, 0, raw[:999]) + pdv(1, 0, raw[999:2000]))
        + pdu(P_DATA, pdv(1, 0, b""))
        + pdu(P_DATA, pdv(1, 0, raw[2000:]))
        + pdu(P_DATA, pdv(1, LAST, b""))
        + pdu(0x05, bytes(4))
    )
    with RawPeer(port.number) as peer:
        peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.associate()
        for at in range(0, len(stream), step):
            peer.send(stream[at : at + step])
        assert peer.response().Status == 0x0000
        assert peer.receive()[0] == RELEASE_RP
    assert port.spool.path_of(port.taken[0][2].path).read_bytes().endswith(raw)


def test_a_pdu_far_beyond_what_was_negotiated_is_taken_all_the_same(port: Port) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        assert peer.store(film("1.2.3", pixels=bytes(3_000_000)), fragment=1 << 30) == 0x0000
    assert port.uids == ["1.2.3"]


def test_a_peer_that_does_not_wait_for_its_answers(port: Port) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        for n in range(12):
            peer.send_store(film(f"1.2.3.{n}", pixels=bytes(50_000)), message_id=n + 1)
        peer.send(pdu(0x05, bytes(4)))
        assert [peer.response().MessageIDBeingRespondedTo for _ in range(12)] == list(range(1, 13))
        assert peer.receive()[0] == RELEASE_RP
    assert len(port.taken) == 12


def test_sixty_associations_at_once(port: Port, nothing_lasting: Callable[[], None]) -> None:
    nothing_lasting()
    together = threading.Barrier(60)

    def send(n: int) -> int:
        with RawPeer(port.number, timeout=60) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            together.wait(60)
            status = peer.store(film(f"1.2.3.{n}", pixels=bytes([n]) * 300_000))
            assert peer.release()[0] == RELEASE_RP
            return status

    with ThreadPoolExecutor(60) as pool:
        assert set(pool.map(send, range(60))) == {0x0000}
    assert len(set(port.uids)) == 60
    for head, _, file, _ in port.taken:
        n = int(head.instance.sop_uid.rpartition(".")[2])
        assert port.spool.path_of(file.path).read_bytes().endswith(bytes([n]) * 300_000)
    eventually(lambda: port.listener.active_associations == 0)


# who is let in


def test_rejections_carry_the_standards_reason_and_are_recorded_with_the_mend(open_port: Open) -> None:
    door = open_port(
        local_aes=(HILUM, LocalAE(ae_title="ER", accept=(Caller(ae_title="ER_DX", address="10.0.0.0/8"),)))
    )
    cases = {
        (b"NOBODY", b"RAW"): ((1, 1, 7), "called AE title not recognised"),
        (b"", b"RAW"): ((1, 1, 7), "called AE title not recognised"),
        (b"ER", b"RAW"): ((1, 1, 3), "calling AE title not recognised"),
        (b"ER", b"ER_DX"): ((1, 1, 3), "calling address not allowed"),
    }
    for (called, calling), (reason, _) in cases.items():
        with RawPeer(door.number) as peer:
            kind, body = peer.associate(called=called, calling=calling)
            assert (kind, tuple(body[1:4])) == (ASSOCIATE_RJ, reason)
            assert peer.receive()[0] == 0
    eventually(lambda: len(door.rejections) == 4)
    assert [r.what for r in door.rejections] == [what for _, what in cases.values()]
    for rejection, (called, calling) in zip(door.rejections, cases, strict=True):
        assert rejection.sender == Sender(calling_ae=calling.decode(), called_ae=called.decode(), address="127.0.0.1")
        assert rejection.mend
        assert "\n" not in rejection.mend
        assert rejection.at == door.now


@pytest.mark.parametrize("calling", [b"", b"\0" * 16, b"R\xf6ntgen", b"back\\slash", b"\x1b[2J"])
def test_odd_calling_titles_are_no_obstacle(port: Port, calling: bytes) -> None:
    with RawPeer(port.number) as peer:
        assert peer.associate(calling=calling)[0] == ASSOCIATE_AC
        assert peer.store(film("1.2.3")) == 0x0000
    ((_, sender, file, _),) = port.taken
    assert sender.calling_ae.isprintable()
    assert pydicom.dcmread(port.spool.path_of(file.path)).SOPInstanceUID == "1.2.3"


@pytest.mark.parametrize("called", [b"HILUM", b"  HILUM", b"HILUM\0\0\0"])
def test_padding_of_the_called_title_does_not_matter(port: Port, called: bytes) -> None:
    with RawPeer(port.number) as peer:
        assert peer.associate(called=called)[0] == ASSOCIATE_AC


def test_each_title_gives_its_films_its_own_urgency(open_port: Open) -> None:
    door = open_port(local_aes=(HILUM, LocalAE(ae_title="ER", order_urgency=Urgency.STAT)))
    with RawPeer(door.number) as peer:
        assert peer.associate(called=b"ER")[0] == ASSOCIATE_AC
        assert peer.store(film("1.2.3")) == 0x0000
    assert door.taken[0][3] is Urgency.STAT
    assert door.taken[0][1].called_ae == "ER"


def test_the_limit_counts_associations_and_not_strangers(open_port: Open) -> None:
    door = open_port(max_associations=2)
    strangers = [RawPeer(door.number) for _ in range(10)]
    first, second, third = (RawPeer(door.number) for _ in range(3))
    assert first.associate()[0] == second.associate()[0] == ASSOCIATE_AC
    kind, body = third.associate()
    assert (kind, tuple(body[1:4])) == (ASSOCIATE_RJ, (2, 3, 2))
    eventually(lambda: [r.what for r in door.rejections] == ["local limit of 2 associations reached"])
    assert first.release()[0] == RELEASE_RP
    eventually(lambda: door.listener.active_associations == 1)
    with RawPeer(door.number) as fourth:
        assert fourth.associate()[0] == ASSOCIATE_AC
    for peer in (*strangers, first, second, third):
        peer.connection.close()


def test_refused_classes_and_syntaxes_are_recorded_and_the_rest_is_taken(port: Port) -> None:
    commitment, mpeg = "1.2.840.10008.1.20.1", "1.2.840.10008.1.2.4.100"
    cr = "1.2.840.10008.5.1.4.1.1.1"
    with RawPeer(port.number) as peer:
        contexts = [(DX, [mpeg, EXPLICIT]), (commitment, [IMPLICIT]), (cr, [mpeg])]
        assert peer.associate(contexts=contexts)[0] == ASSOCIATE_AC
        assert peer.store(film("1.2.3")) == 0x0000
    eventually(lambda: len(port.rejections) == 2)
    assert "Storage Commitment" in port.rejections[0].what
    assert "MPEG2" in port.rejections[1].what


@pytest.mark.parametrize("sop_class", ["1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.9999"])
def test_classes_that_nobody_knows_are_kept(port: Port, sop_class: str) -> None:
    with RawPeer(port.number) as peer:
        assert peer.associate(contexts=[(sop_class, [EXPLICIT])])[0] == ASSOCIATE_AC
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.3", sop_class=sop_class))))
        peer.send(pdu(P_DATA, pdv(1, LAST, encode(film("1.2.3", sop_class=sop_class)))))
        assert peer.response().Status == 0x0000


def test_a_storm_of_refusals_is_told_once_a_minute(port: Port) -> None:
    def storm(titles: int) -> None:
        for n in range(titles):
            with RawPeer(port.number) as peer:
                assert peer.associate(called=f"WRONG{n}".encode())[0] == ASSOCIATE_RJ

    storm(1)
    storm(1)
    storm(120)
    eventually(lambda: len(port.rejections) == 100)
    port.now += timedelta(minutes=2)
    storm(1)
    eventually(lambda: len(port.rejections) > 100)


def test_a_record_that_is_away_does_not_cost_the_port(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Rejection) -> None:
        raise RecordError("away")

    monkeypatch.setattr(port.listener, "_rejected", away)
    with RawPeer(port.number) as peer:
        assert peer.associate(called=b"WRONG")[0] == ASSOCIATE_RJ
    with RawPeer(port.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


# peers that misbehave


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + os.urandom(180),
    "zeros": bytes(100),
    "huge associate": struct.pack(">BxI", 1, 0xFFFFFFFF) + b"x" * 1000,
    "huge data": struct.pack(">BxI", 4, 0xFFFFFFFF) + b"x" * 1000,
    "data before association": pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.3"))),
    "release before association": pdu(0x05, bytes(4)),
    "abort before association": pdu(ABORT, bytes(4)),
    "associate without body": pdu(0x01, b""),
    "associate cut off": associate_rq()[:50],
    "items that overrun": pdu(0x01, associate_rq()[6:74] + struct.pack(">BxH", 0x10, 0xFFFF) + b"x"),
    "items of no length": pdu(0x01, associate_rq()[6:74] + bytes(400)),
    "wrong protocol version": associate_rq().replace(struct.pack(">HH", 1, 0), struct.pack(">HH", 2, 0), 1),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_costs_nothing_lasting(port: Port, what: str, nothing_lasting: Callable[[], None]) -> None:
    nothing_lasting()
    for _ in range(10):
        with RawPeer(port.number) as peer:
            peer.send(GARBAGE[what])
            peer.connection.shutdown(socket.SHUT_WR)
            while peer.receive()[0]:
                pass
    with RawPeer(port.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


def test_port_probes_cost_nothing_lasting(port: Port, nothing_lasting: Callable[[], None]) -> None:
    nothing_lasting()
    for _ in range(300):
        RawPeer(port.number).connection.close()
    with RawPeer(port.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


def test_a_peer_that_says_nothing_is_shown_out(open_port: Open, nothing_lasting: Callable[[], None]) -> None:
    door = open_port(acse_timeout=0.3)
    nothing_lasting()
    with RawPeer(door.number) as silent, RawPeer(door.number) as slow:
        slow.send(associate_rq()[:20])
        assert silent.receive()[0] == slow.receive()[0] == 0


def test_a_flood_of_silent_peers_does_not_lock_the_senders_out(open_port: Open) -> None:
    door = open_port(max_associations=2)
    flood = [RawPeer(door.number) for _ in range(150)]
    with RawPeer(door.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.store(film("1.2.3")) == 0x0000
    assert flood[0].receive()[0] == 0
    for silent in flood:
        silent.connection.close()


@pytest.mark.parametrize("thread", ["StoreAssociation", "StoreDUL"])
def test_when_no_more_threads_can_be_had_the_port_survives(
    port: Port, monkeypatch: pytest.MonkeyPatch, thread: str, nothing_lasting: Callable[[], None]
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    nothing_lasting()
    with monkeypatch.context() as patch:
        patch.setattr(getattr(transport, thread), "start", no_more)
        for _ in range(3):
            with RawPeer(port.number) as peer:
                assert peer.receive()[0] == 0
    with RawPeer(port.number) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


def test_an_association_that_falls_silent_is_aborted(open_port: Open, nothing_lasting: Callable[[], None]) -> None:
    door = open_port(network_timeout=0.5)
    nothing_lasting()
    with RawPeer(door.number) as idle, RawPeer(door.number) as stuck:
        idle.associate()
        stuck.associate()
        stuck.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.3"))))
        stuck.send(pdu(P_DATA, pdv(1, 0, encode(film("1.2.3", pixels=bytes(400_000))))[:300_000]))
        assert idle.receive()[0] == ABORT
        assert stuck.receive()[0] == ABORT
    eventually(lambda: door.unfinished() == [])


def test_a_peer_that_never_reads_does_not_hold_a_thread(open_port: Open, nothing_lasting: Callable[[], None]) -> None:
    door = open_port(network_timeout=1.0)
    nothing_lasting()
    echo = pdu(P_DATA, pdv(3, COMMAND | LAST, command(0x0030, has_data=False, AffectedSOPClassUID=VERIFICATION)))
    peer = RawPeer(door.number, timeout=2)
    peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.associate()
    with pytest.raises(OSError):
        for _ in range(200_000):
            peer.send(echo)
    peer.connection.close()


BROKEN = {
    "longer than its PDU": pdu(P_DATA, struct.pack(">IBB", 1000, 1, 0) + b"x" * 10),
    "shorter than its header": pdu(P_DATA, struct.pack(">IBB", 1, 1, 0)),
    "of no length": pdu(P_DATA, struct.pack(">IBB", 0, 1, 0)),
    "empty PDU": pdu(P_DATA, b""),
    "PDU of three bytes": pdu(P_DATA, b"abc"),
    "command in the middle of a data set": pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.9"))),
    "another context in the middle": pdu(P_DATA, pdv(3, 0, b"x")),
    "a second association": associate_rq(),
    "an unknown PDU": struct.pack(">BxI", 0x77, 4) + bytes(4),
    "a data PDU of four gigabytes": struct.pack(">BxI", 4, 0xFFFFFFFF) + bytes(100),
}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("what", BROKEN)
def test_broken_framing_aborts_and_nothing_else_suffers(port: Port, what: str, begun: bool) -> None:
    if not begun and what.endswith("in the middle of a data set"):
        return
    with RawPeer(port.number) as peer, RawPeer(port.number) as other:
        peer.associate()
        other.associate()
        if begun:
            peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq("1.2.3"))))
            peer.send(pdu(P_DATA, pdv(1, 0, encode(film("1.2.3"))[:200])))
        peer.send(BROKEN[what])
        assert peer.receive()[0] in (ABORT, 0)
        assert other.store(film("1.2.4")) == 0x0000
    assert port.uids == ["1.2.4"]
    eventually(lambda: port.unfinished() == [])


@pytest.mark.parametrize(
    "fragments",
    [
        pdv(1, LAST, b"data before any command"),
        pdv(1, COMMAND | LAST, b""),
        pdv(1, COMMAND | LAST, b"\xff" * 100),
        pdv(1, COMMAND | LAST, command(0x7777)),
        pdv(5, COMMAND | LAST, store_rq("1.2.3")),
        pdv(1, COMMAND | LAST, store_rq("1." + "2" * 100)),
        b"".join(pdv(1, COMMAND, bytes(1 << 16)) for _ in range(20)),
    ],
    ids=["data first", "empty", "garbage", "unknown", "unaccepted context", "UID too long", "endless"],
)
def test_a_command_set_that_is_none_aborts(port: Port, fragments: bytes) -> None:
    with RawPeer(port.number) as peer:
        peer.associate()
        peer.send(pdu(P_DATA, fragments))
        assert peer.receive()[0] in (ABORT, 0)
    with RawPeer(port.number) as peer:
        peer.associate()
        assert peer.store(film("1.2.4")) == 0x0000


# the listener itself


def test_another_service_on_the_same_port(open_port: Open) -> None:
    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        answer = Dataset()
        answer.PatientID = event.identifier.PatientID
        yield 0xFF00, answer

    worklist = ExtraHandler(frozenset({str(ModalityWorklistInformationFind)}), evt.EVT_C_FIND, find)
    door = open_port(extra=(worklist,))
    ae = AE("SCU")
    ae.add_requested_context(ModalityWorklistInformationFind)
    ae.add_requested_context(DX, EXPLICIT)
    assoc = ae.associate("127.0.0.1", door.number, ae_title="HILUM")
    query = Dataset()
    query.PatientID = "P7"
    answers = list(assoc.send_c_find(query, ModalityWorklistInformationFind))
    assert [(s.Status, d and d.PatientID) for s, d in answers] == [(0xFF00, "P7"), (0x0000, None)]
    assert assoc.send_c_store(_file("1.2.3")).Status == 0x0000
    assoc.release()


def test_stop_lets_a_film_in_hand_finish_and_aborts_who_idles(open_port: Open) -> None:
    door = open_port()
    begun, may_go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        may_go_on.wait(20)

    door.before = slowly
    with RawPeer(door.number) as busy, RawPeer(door.number) as idle:
        busy.associate()
        idle.associate()
        number = door.number
        busy.send_store(film("1.2.3"))
        begun.wait(20)
        stopping = threading.Thread(target=door.listener.stop, args=(3.0,))
        stopping.start()
        may_go_on.set()
        assert busy.response().Status == 0x0000
        assert busy.release()[0] == RELEASE_RP
        assert idle.receive()[0] == ABORT
        stopping.join(20)
        assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        RawPeer(number)


def test_a_port_that_is_taken_is_a_fault_of_the_configuration(port: Port, tmp_path: Path) -> None:
    config = ListenerConfig(host="127.0.0.1", port=port.number, local_aes=(HILUM,))
    with pytest.raises(ConfigurationError, match="cannot listen"):
        Listener(config, SYNTAXES, port.spool, port.intake, port.rejections.append).start()


def test_a_wrong_allow_list_shows_at_once(port: Port) -> None:
    wrong = LocalAE(ae_title="HILUM", accept=(Caller(address="10.0.0.0/99"),))
    config = ListenerConfig(host="127.0.0.1", port=0, local_aes=(wrong,))
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.0/99"):
        Listener(config, SYNTAXES, port.spool, port.intake, port.rejections.append)
