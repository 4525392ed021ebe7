"""One C-STORE to its status: Success only after intake has returned."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from schemas.decision import Urgency
from schemas.errors import HilumError, RecordError, SpoolFull, Unreadable, WrongSopClass
from schemas.identity import Sender
from tests.unit.receive.test_head import DX, data_set, encode
from worker.ports import Incoming
from worker.receive.head import Head
from worker.receive.store import Arrival, Reply, file_preamble
from worker.spool.local import LocalSpool

SENDER = Sender(calling_ae="DX1", called_ae="HILUM", address="127.0.0.1")


@pytest.fixture
def spool(tmp_path: Path) -> LocalSpool:
    return LocalSpool(tmp_path / "spool")


def commit(head: Head, sender: Sender, incoming: Incoming, order_urgency: Urgency) -> None:
    assert (sender, order_urgency) == (SENDER, Urgency.URGENT)
    incoming.commit(head.instance)


Intake = Callable[[Head, Sender, Incoming, Urgency], None]


def arrival(spool: LocalSpool, intake: Intake = commit, *, sop_class: str = DX, sop_uid: str = "1.2.3") -> Arrival:
    return Arrival(
        spool,
        intake,
        sop_class=sop_class,
        sop_uid=sop_uid,
        transfer_syntax=ExplicitVRLittleEndian,
        sender=SENDER,
        order_urgency=Urgency.URGENT,
    )


def kept(spool: LocalSpool) -> list[Path]:
    return [path for path in spool.root.rglob("*") if path.is_file()]


def raises(error: Exception) -> Intake:
    def intake(head: Head, sender: Sender, incoming: Incoming, order_urgency: Urgency) -> None:
        raise error

    return intake


def test_success_is_a_complete_file_in_the_spool(spool: LocalSpool) -> None:
    film = arrival(spool)
    film.write(memoryview(encode(data_set())))
    assert film.settle() == Reply(0x0000)
    (path,) = kept(spool)
    stored = pydicom.dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert stored.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert stored.file_meta.SourceApplicationEntityTitle == "DX1"
    assert stored.PatientName == "Phantöm^Chest"


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (SpoolFull("full"), 0xA700, "full"),
        (RecordError("database is away"), 0xA700, "database is away"),
        (WrongSopClass("other class"), 0xA900, "other class"),
        (Unreadable("no identity"), 0xC000, "no identity"),
        (HilumError("x" * 100), 0xC001, "x" * 64),
        (RuntimeError("a bug, with a patient's name in it"), 0xC001, ""),
    ],
)
def test_every_error_of_intake_has_its_status_and_leaves_nothing(
    spool: LocalSpool, error: Exception, status: int, comment: str
) -> None:
    film = arrival(spool, raises(error))
    film.write(memoryview(encode(data_set())))
    reply = film.settle()
    assert (reply.status, reply.comment) == (status, comment)
    assert kept(spool) == []


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2\x003", "x" * 64])
def test_a_hostile_command_set_is_drained_and_refused(spool: LocalSpool, uid: str) -> None:
    for film in (arrival(spool, sop_uid=uid), arrival(spool, sop_class=uid)):
        film.write(memoryview(encode(data_set())))
        assert film.settle().status == 0xC000
    assert kept(spool) == []


def test_another_class_or_instance_than_the_command_set_says(spool: LocalSpool) -> None:
    for names, status in (({"sop_class": "1.2.840.10008.5.1.4.1.1.2"}, 0xA900), ({"sop_uid": "1.2.4"}, 0xC000)):
        film = arrival(spool, **names)
        film.write(memoryview(encode(data_set())))
        assert film.settle().status == status
    assert kept(spool) == []


def test_a_full_disk_in_the_middle_is_drained_and_refused(spool: LocalSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    film = arrival(spool)
    raw = memoryview(encode(data_set()))
    film.write(raw[:100])

    def full(_: object) -> None:
        raise SpoolFull("no space left")

    assert film._incoming is not None
    monkeypatch.setattr(film._incoming, "write", full)
    film.write(raw[100:])
    film.write(raw)
    assert film.settle().status == 0xA700
    assert kept(spool) == []


def test_a_full_disk_at_the_start_is_drained_and_refused(spool: LocalSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_watermark_bytes", 1 << 62)
    film = arrival(spool)
    film.write(memoryview(encode(data_set())))
    assert film.settle().status == 0xA700


def test_a_discarded_film_leaves_nothing(spool: LocalSpool) -> None:
    film = arrival(spool)
    film.write(memoryview(encode(data_set())))
    film.discard()
    film.discard()
    assert kept(spool) == []


@pytest.mark.parametrize("calling_ae", ["", "A", "AB", "SIXTEEN_CHARS_AE"])
def test_the_file_meta_information_is_what_the_standard_says(calling_ae: str) -> None:
    raw = file_preamble(sop_class=DX, sop_uid="1.2.3", transfer_syntax="1.2.840.10008.1.2", calling_ae=calling_ae)
    assert len(raw) % 2 == 0
    meta = pydicom.dcmread(BytesIO(raw)).file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert len(raw) == 132 + 12 + meta.FileMetaInformationGroupLength
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (DX, "1.2.3")
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert meta.ImplementationClassUID.is_valid
    assert meta.get("SourceApplicationEntityTitle", "") == calling_ae
