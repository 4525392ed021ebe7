"""The Modality Worklist, as dcmtk's findscu, pynetdicom and a peer that misbehaves see it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    UnifiedProcedureStepPull,
)

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.identity import StudyContext
from tests.contract.record.given import Record, after, not_read, read
from tests.integration.open_windows import House, associated, find, open_house
from tests.integration.open_windows import fill as fill_with
from tests.integration.raw_peer import (
    ASSOCIATE_AC,
    COMMAND,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_RP,
    RawPeer,
    command,
    encode,
    pdu,
    pdv,
)
from worker.assemble import Role, Worker, database
from worker.decide.routing import recipients
from worker.record.studies import one
from worker.settings import Commitment, Database, Dicom, Settings, SpoolSettings, WorklistSettings

FINDSCU = "/usr/bin/findscu"
MWL = str(ModalityWorklistInformationFind)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Four studies that are open: 2 STAT, 3 URGENT, 1 and 4 ROUTINE; 4 is a lateral view."""
    with open_house(tmp_path) as house:
        fill(house)
        yield house


def fill(house: House) -> None:
    names = {1: "Doe^Jane", 2: "Müller^Jörg", 3: "Roe^Richard", 4: "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    outcomes = {1: read(0.1), 2: read(0.9), 3: read(0.9, Urgency.URGENT), 4: not_read()}
    for study, name in names.items():
        context = StudyContext(
            patient_name=name,
            patient_id=f"P{study}",
            accession_number=f"A{study}",
            modality="CR" if study == 3 else "DX",
            study_description="Chest PA",
        )
        house.record.receive(1, study, context=context, at=after(study))
        house.record.conclude(house.record.claim(at=after(study)), outcomes[study], at=after(study))


def findscu(house: House, folder: Path, *keys: str, options: tuple[str, ...] = ()) -> list[Dataset]:
    """The responses of dcmtk's findscu, in the order in which they came."""
    folder.mkdir()
    words = [word for key in keys for word in ("-k", key)]
    asked = [FINDSCU, "-W", "-X", "-od", str(folder), *options, "-aec", "HILUM", "127.0.0.1", str(house.port), *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [dcmread(path, force=True) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("options", [(), ("-xi",), ("-xe",), ("-xb",), ("--max-pdu", "4096")], ids=str)
def test_findscu_sees_the_list_in_reading_order(house: House, tmp_path: Path, options: tuple[str, ...]) -> None:
    keys = ("PatientName", "PatientID", "RequestedProcedurePriority", "StudyInstanceUID", "RequestedProcedureComments")
    answers = findscu(house, tmp_path / "found", *keys, options=options)
    assert [a.PatientID for a in answers] == ["P2", "P3", "P1", "P4"]
    assert [a.RequestedProcedurePriority for a in answers] == ["STAT", "HIGH", "ROUTINE", "ROUTINE"]
    assert [str(a.PatientName) for a in answers] == [
        "Müller^Jörg",
        "Roe^Richard",
        "Doe^Jane",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ]
    assert "Pneumothorax 0.90" in answers[0].RequestedProcedureComments
    assert all("not for diagnosis" in a.RequestedProcedureComments for a in answers)


STEP = "ScheduledProcedureStepSequence[0]."


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["PatientName=doe*"], ["P1"]),
        (["PatientName=*r*"], ["P2", "P3", "P4"]),
        (["PatientID=P3"], ["P3"]),
        (["PatientID=P?", "AccessionNumber=A4"], ["P4"]),
        (["StudyInstanceUID=1.2.3.1\\1.2.3.2"], ["P2", "P1"]),
        ([STEP + "Modality=CR"], ["P3"]),
        ([STEP + "Modality=DX", STEP + "ScheduledStationAETitle=ROOM1"], ["P2", "P1", "P4"]),
        ([STEP + "ScheduledStationAETitle=ROOM9"], []),
        ([STEP + "ScheduledProcedureStepStartDate=20260301"], ["P2", "P3", "P1", "P4"]),
        ([STEP + "ScheduledProcedureStepStartDate=20260228-20260301"], ["P2", "P3", "P1", "P4"]),
        ([STEP + "ScheduledProcedureStepStartDate=20260302-"], []),
        (["RequestedProcedurePriority=STAT"], ["P2"]),
        (["PatientName=Nobody"], []),
        (["SpecificCharacterSet=ISO_IR 100", "PatientName=Doe*"], ["P1"]),
    ],
    ids=" ".join,
)
def test_findscu_matches(house: House, tmp_path: Path, keys: list[str], expected: list[str]) -> None:
    asked = keys if any(key.startswith("PatientID") for key in keys) else [*keys, "PatientID"]
    assert [a.PatientID for a in findscu(house, tmp_path / "found", *asked)] == expected


def test_what_is_reported_is_not_there_any_more(house: House, tmp_path: Path) -> None:
    nobody = partial(recipients, [])
    house.record.studies.withdraw(one("1.2.3.2"), Withdrawal.REPORTED, nobody, after(99))
    assert [a.PatientID for a in findscu(house, tmp_path / "found", "PatientID")] == ["P3", "P1", "P4"]


def test_pending_says_when_a_key_is_not_supported(house: House) -> None:
    query = Dataset()
    query.PatientID = ""
    assert find(house, MWL, query)[1] == [0xFF00] * 4 + [0x0000]
    query.PatientComments = ""
    assert find(house, MWL, query)[1] == [0xFF01] * 4 + [0x0000]


def test_nonsense_gets_a_failure_and_the_association_lives_on(house: House) -> None:
    nonsense = Dataset()
    nonsense.SpecificCharacterSet = "ISO_IR 100"
    query = Dataset()
    query.PatientID = "P1"
    with associated(house, MWL) as association:
        ((refused, _),) = association.send_c_find(nonsense, MWL)
        found = list(association.send_c_find(query, MWL))
    assert (refused.Status, refused.ErrorComment) == (0xA900, "Identifier without a key")
    assert [said.Status for said, _ in found] == [0xFF00, 0x0000]


def find_rq(message_id: int, query: bytes) -> bytes:
    asked = command(0x0020, message_id=message_id, AffectedSOPClassUID=MWL, Priority=0)
    return pdu(P_DATA, pdv(1, COMMAND | LAST, asked)) + pdu(P_DATA, pdv(1, LAST, query))


def cancel_rq(message_id: int) -> bytes:
    asked = command(0x0FFF, has_data=False, MessageIDBeingRespondedTo=message_id)
    return pdu(P_DATA, pdv(1, COMMAND | LAST, asked))


@contextmanager
def raw(house: House, max_pdu: int = 16384) -> Iterator[RawPeer]:
    with RawPeer(house.port) as peer:
        kind, _ = peer.associate(contexts=((MWL, [IMPLICIT]),), max_pdu=max_pdu)
        assert kind == ASSOCIATE_AC
        yield peer


def everything() -> bytes:
    query = Dataset()
    query.PatientID = query.RequestedProcedureComments = ""
    return encode(query, implicit=True)


def statuses(peer: RawPeer) -> list[int]:
    """Of every response up to the last; what they carry is passed over."""
    found = []
    while not found or found[-1] & 0xFFFE == 0xFF00:
        kind, body = peer.receive()
        assert kind == P_DATA
        if body[5] & COMMAND:
            found.append(int.from_bytes(body[body.index(b"\0\0\0\x09") + 8 :][:2], "little"))
    return found


def many(house: House, count: int) -> None:
    fill_with(house.record.database, count, first=100)


def test_a_cancelled_query_ends_and_the_next_is_whole(house: House) -> None:
    many(house, 1500)
    with raw(house) as peer:
        peer.send(find_rq(1, everything()) + cancel_rq(1))
        cancelled = statuses(peer)
        assert cancelled[-1] == 0xFE00
        assert len(cancelled) < 1500
        peer.send(cancel_rq(2))  # of a query that is yet to come: it cancels nothing
        peer.send(find_rq(2, everything()))
        assert statuses(peer) == [0xFF00] * 1504 + [0x0000]
        assert peer.release()[0] == RELEASE_RP


@pytest.mark.parametrize("max_pdu", [0, 130, 500, 16384])
def test_whatever_the_peer_takes_at_once(house: House, max_pdu: int) -> None:
    with raw(house, max_pdu) as peer:
        peer.send(find_rq(1, everything()))
        assert statuses(peer) == [0xFF00] * 4 + [0x0000]


def test_a_peer_that_does_not_read_holds_up_nobody_and_one_that_goes_leaves_nothing(house: House) -> None:
    many(house, 3000)
    query = Dataset()
    query.PatientID = "P1"
    assert len(find(house, MWL, query)[0]) == 1
    began = time.monotonic()
    with raw(house) as deaf:
        deaf.send(b"".join(find_rq(n, everything()) for n in range(1, 6)))
        assert len(find(house, MWL, query)[0]) == 1
    assert time.monotonic() - began < 30
    assert find(house, MWL, query)[1][-1] == 0x0000


def test_a_query_without_an_identifier(house: House) -> None:
    with raw(house) as peer:
        asked = command(0x0020, has_data=False, AffectedSOPClassUID=MWL, Priority=0)
        peer.send(pdu(P_DATA, pdv(1, COMMAND | LAST, asked)))
        assert statuses(peer) == [0xA900]


@pytest.mark.parametrize("offered", [True, False])
def test_the_worker_opens_what_is_configured(tmp_path: Path, offered: bool) -> None:
    settings = Settings(
        database=Database(url=f"sqlite:///{tmp_path}/hilum.db"),
        spool=SpoolSettings(path=tmp_path / "spool", watermark_mib=0),
        dicom=Dicom(port=0),
        commitment=Commitment(offered=offered),
    )
    database(settings).migrate()
    worker = Worker(settings, [Role.RECEIVE])
    worker.start()
    try:
        assert worker.listener is not None
        house = House(Record(worker.database, settings.database.url), worker.listener.port)
        with associated(house, MWL, UnifiedProcedureStepPull, StorageCommitmentPushModel) as association:
            accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        query = Dataset()
        query.PatientID = ""
        assert find(house, MWL, query) == ([], [0x0000])
    finally:
        worker.stop()
    assert accepted == {MWL, UnifiedProcedureStepPull, *([StorageCommitmentPushModel] if offered else [])}


def test_a_window_that_is_shut_is_not_negotiated(tmp_path: Path) -> None:
    settings = Settings(worklist=WorklistSettings(mwl=False))
    with open_house(tmp_path, settings=settings) as house, RawPeer(house.port) as peer:
        kind, body = peer.associate(contexts=((MWL, [IMPLICIT]),))
        assert kind == ASSOCIATE_AC
        assert body[body.index(b"\x21\0\0") + 6] == 3  # abstract syntax not supported, PS3.8 9.3.3.2
