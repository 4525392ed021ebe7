"""Storage Commitment that hilum grants: asked for by pynetdicom's client, and by a real Orthanc."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel

from schemas.errors import RecordError
from tests.integration.open_windows import PLAIN
from tests.integration.raw_peer import DX, film
from tests.orthanc import Orthanc, free_ports
from worker.corridor.bell import Bell
from worker.corridor.intake import Intake
from worker.receive.access import LocalAE
from worker.receive.commitment_scp import EVENT, SOP_CLASS, SOP_INSTANCE, CommitmentScp, ReportTo
from worker.receive.listener import ExtraHandler, Listener, ListenerConfig
from worker.record.database import Database
from worker.record.instances import Instances
from worker.record.kept import Kept
from worker.spool.local import LocalSpool

CR = "1.2.840.10008.5.1.4.1.1.1"
ROOM = "ROOM1"


@dataclass
class Keeper:
    """hilum's port, with what it has taken."""

    port: int
    database: Database
    spool: LocalSpool
    record_away: list[bool] = field(default_factory=list)


@pytest.fixture
def rooms_port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def keeper(tmp_path: Path, rooms_port: int) -> Iterator[Keeper]:
    database = Database(f"sqlite:///{tmp_path}/hilum.db")
    database.migrate()
    spool = LocalSpool(tmp_path / "spool", watermark_bytes=0)
    away: list[bool] = []

    def known(uids: Sequence[str]) -> Any:
        if away:
            raise RecordError("database: away")
        return Kept(database).of(uids)

    scp = CommitmentScp(known, spool, {ROOM: ReportTo(host="127.0.0.1", port=rooms_port)}, timeout=5.0, pause=0.2)
    listener = Listener(
        ListenerConfig(host="127.0.0.1", port=0, local_aes=(LocalAE(ae_title="HILUM"),)),
        PLAIN,
        spool,
        Intake(Instances(database), Bell(), lambda: datetime.now(UTC)),
        lambda _: None,
        extra_handlers=[ExtraHandler(frozenset({SOP_CLASS}), EVENT, scp)],
    )
    scp.start()
    listener.start()
    yield Keeper(listener.port, database, spool, away)
    listener.stop()
    scp.stop()
    database.close()


@dataclass
class Modality:
    """A client that sends, asks and hears the answer, wherever it comes."""

    title: str
    answers: queue.Queue[tuple[int, Dataset]] = field(default_factory=queue.Queue)

    def hear(self, event: evt.Event) -> tuple[int, None]:
        self.answers.put((event.event_type, event.event_information))
        return 0x0000, None

    def associate(self, keeper: Keeper) -> Association:
        ae = AE(self.title)
        ae.add_requested_context(StorageCommitmentPushModel)
        for sop_class in (DX, CR):
            ae.add_requested_context(sop_class, PLAIN[1])
        assoc = ae.associate(
            "127.0.0.1", keeper.port, ae_title="HILUM", evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.hear)]
        )
        assert assoc.is_established
        return assoc

    def store(self, keeper: Keeper, *uids: str) -> None:
        assoc = self.associate(keeper)
        for uid in uids:
            sent = film(uid)
            sent.file_meta = _meta()
            assert assoc.send_c_store(sent).Status == 0x0000
        assoc.release()

    def listen(self, port: int) -> Any:
        ae = AE(self.title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.hear)]
        return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)


def _meta() -> Any:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = PLAIN[1]
    return meta


def request(transaction: str, *references: tuple[str, str]) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        asked.ReferencedSOPSequence.append(item)
    return asked


def ask(assoc: Association, asked: Dataset) -> int:
    status, _ = assoc.send_n_action(asked, 1, StorageCommitmentPushModel, SOP_INSTANCE)
    return int(status.Status)


def uids(items: Sequence[Dataset] | None) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in items or ()]


def test_what_is_kept_is_committed_on_the_association_it_was_asked_on(keeper: Keeper) -> None:
    modality = Modality("OTHER")
    modality.store(keeper, "1.2.3.1", "1.2.3.2")
    assoc = modality.associate(keeper)
    assert ask(assoc, request("1.9.1", (DX, "1.2.3.1"), (DX, "1.2.3.2"))) == 0x0000
    event_type, said = modality.answers.get(timeout=20)
    assert (event_type, said.TransactionUID) == (1, "1.9.1")
    assert uids(said.ReferencedSOPSequence) == ["1.2.3.1", "1.2.3.2"]
    assert "FailedSOPSequence" not in said
    assert ask(assoc, request("1.9.2", (DX, "1.2.3.1"))) == 0x0000, "the association lives on"
    assert modality.answers.get(timeout=20)[1].TransactionUID == "1.9.2"
    assoc.release()


def test_what_is_not_kept_is_told_with_its_reason(keeper: Keeper) -> None:
    modality = Modality("OTHER")
    modality.store(keeper, "1.2.3.1", "1.2.3.2", "1.2.3.3")
    ((_, gone),) = Kept(keeper.database).of(["1.2.3.2"])["1.2.3.2"]
    keeper.spool.remove(str(gone))
    assoc = modality.associate(keeper)
    asked = request("1.9.1", (DX, "1.2.3.1"), (DX, "1.2.3.2"), (CR, "1.2.3.3"), (DX, "1.2.3.4"))
    assert ask(assoc, asked) == 0x0000
    event_type, said = modality.answers.get(timeout=20)
    assoc.release()
    assert event_type == 2
    assert uids(said.ReferencedSOPSequence) == ["1.2.3.1"]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in said.FailedSOPSequence] == [
        ("1.2.3.2", 0x0112),
        ("1.2.3.3", 0x0119),
        ("1.2.3.4", 0x0112),
    ]


def test_without_the_record_nothing_is_committed(keeper: Keeper) -> None:
    modality = Modality("OTHER")
    modality.store(keeper, "1.2.3.1")
    keeper.record_away.append(True)
    assoc = modality.associate(keeper)
    ask(assoc, request("1.9.1", (DX, "1.2.3.1")))
    event_type, said = modality.answers.get(timeout=20)
    assoc.release()
    assert (event_type, said.FailedSOPSequence[0].FailureReason) == (2, 0x0110)


def test_a_modality_with_an_address_is_told_there_also_when_it_listens_late(keeper: Keeper, rooms_port: int) -> None:
    modality = Modality(ROOM)
    modality.store(keeper, "1.2.3.1")
    assoc = modality.associate(keeper)
    assert ask(assoc, request("1.9.1", (DX, "1.2.3.1"))) == 0x0000
    assoc.release()
    time.sleep(0.1)
    assert modality.answers.empty()
    server = modality.listen(rooms_port)
    try:
        event_type, said = modality.answers.get(timeout=20)
    finally:
        server.shutdown()
    assert (event_type, uids(said.ReferencedSOPSequence)) == (1, ["1.2.3.1"])


@pytest.mark.parametrize(
    ("action_type", "instance", "asked", "status"),
    [
        (1, "1.2.840.10008.1.20.1.9", request("1.9.1", (DX, "1.2.3.1")), 0x0112),
        (2, SOP_INSTANCE, request("1.9.1", (DX, "1.2.3.1")), 0x0123),
        (1, SOP_INSTANCE, request("1.9.1"), 0x0115),
        (1, SOP_INSTANCE, request("", (DX, "1.2.3.1")), 0x0115),
        (1, SOP_INSTANCE, request("1.9.1", (DX, "")), 0x0115),
    ],
)
def test_what_is_no_request_is_refused(
    keeper: Keeper, action_type: int, instance: str, asked: Dataset, status: int
) -> None:
    modality = Modality("OTHER")
    assoc = modality.associate(keeper)
    said, _ = assoc.send_n_action(asked, action_type, StorageCommitmentPushModel, instance)
    assert said.Status == status
    assert ask(assoc, request("1.9.2", (DX, "1.2.3.1"))) == 0x0000
    assert modality.answers.get(timeout=20)[1].TransactionUID == "1.9.2"
    assoc.release()


def test_orthanc_is_told_what_hilum_keeps_of_what_it_sent(keeper: Keeper, rooms_port: int, tmp_path: Path) -> None:
    orthanc = Orthanc(
        tmp_path / "orthanc",
        ae_title=ROOM,
        modalities={"hilum": ("HILUM", "127.0.0.1", keeper.port)},
        settings={"DicomPort": rooms_port},
    )
    try:
        sent = film("1.2.3.7")
        sent.file_meta = _meta()
        path = tmp_path / "film.dcm"
        sent.save_as(path, enforce_file_format=True)
        instance = orthanc.post("/instances", path.read_bytes())["ID"]
        orthanc.post("/modalities/hilum/store", [instance])
        body = {"DicomInstances": [[DX, "1.2.3.7"], [DX, "1.2.3.8"]]}
        transaction = orthanc.post("/modalities/hilum/storage-commitment", body)["ID"]
        until = time.monotonic() + 30
        while (report := orthanc.get(f"/storage-commitment/{transaction}"))["Status"] == "Pending":
            assert time.monotonic() < until, report
            time.sleep(0.1)
    finally:
        orthanc.stop()
    assert report["Status"] == "Failure", report
    assert [item["SOPInstanceUID"] for item in report["Success"]] == ["1.2.3.7"]
    assert [(item["SOPInstanceUID"], item["FailureReason"]) for item in report["Failures"]] == [("1.2.3.8", 0x0112)]
