"""Storage Commitment with Orthanc, which calls back, and with peers that answer otherwise, never, or with rubbish."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association as PynetdicomAssociation
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from schemas.errors import PermanentFailure, RecordError
from schemas.flag import Receipt
from schemas.lifecycle import OutboxState
from tests import waiting
from tests.contract.record.given import NOW, Record, instance, read
from tests.orthanc import Orthanc, free_ports
from tests.unit.notify.flags import flag
from worker.assemble import Role, Worker
from worker.notify import commitment
from worker.notify.association import Association, Peer
from worker.notify.commitment import Answer, Reports
from worker.notify.dicom_sr import DicomSr
from worker.record.database import Database
from worker.settings import Database as DatabaseSettings
from worker.settings import Dicom, ScDestination, Settings, SpoolSettings, SrDestination
from worker.simulate.pacs import Pacs

eventually = partial(waiting.eventually, seconds=40.0)

STUDY = instance().study_uid
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


class Hospital:
    """A worker that receives and delivers, and the record that it works on."""

    def __init__(self, folder: Path, port: int, pacs: tuple[str, int], kind: str = "dicom-sr") -> None:
        url = f"sqlite:///{folder}/hilum.db"
        database = Database(url)
        database.migrate()
        self.record = Record(database, url)
        shape = {"dicom-sr": SrDestination, "dicom-sc": ScDestination}[kind]
        self.settings = Settings(
            dicom=Dicom(port=port),
            database=DatabaseSettings(url=url),
            spool=SpoolSettings(path=folder / "spool", watermark_mib=0),
            destinations=[
                shape(name="pacs", kind=kind, ae_title=pacs[0], port=pacs[1], commitment=True, when="analysed")
            ],
        )
        self.worker = Worker(self.settings, [Role.RECEIVE, Role.DELIVER])
        self.worker.start()

    def delivery(self) -> dict[str, Any]:
        story = self.record.worklist.results(STUDY)
        assert story is not None
        delivery: dict[str, Any] = story["deliveries"][0]
        return delivery

    def close(self) -> None:
        self.worker.stop()
        self.record.database.close()


@pytest.fixture(scope="module")
def hospital_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, hospital_port: int) -> Iterator[Orthanc]:
    """An Orthanc that knows where hilum listens, as an administrator would tell it."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc"), modalities={"hilum": ("HILUM", "127.0.0.1", hospital_port)})
    yield server
    server.stop()


@pytest.fixture
def hospital(orthanc: Orthanc, hospital_port: int, tmp_path: Path) -> Iterator[Hospital]:
    orthanc.empty()
    made = Hospital(tmp_path, hospital_port, (orthanc.ae_title, orthanc.port))
    yield made
    made.close()


# Orthanc


def test_orthanc_commits_itself_to_the_report(hospital: Hospital, orthanc: Orthanc) -> None:
    hospital.record.film(1, outcome=read(0.9))
    delivery = eventually(lambda: (d := hospital.delivery())["proven_at"] and d)
    assert delivery["state"] == OutboxState.SENT
    assert delivery["proof"] == "C-STORE 0x0000, commitment asked for; Storage Commitment by ORTHANC"
    (stored,) = orthanc.instances_of(STUDY)
    assert stored["MainDicomTags"]["SOPInstanceUID"] == delivery["object_id"]


def test_orthanc_commits_itself_to_the_page(orthanc: Orthanc, hospital_port: int, tmp_path: Path) -> None:
    orthanc.empty()
    with closing(Hospital(tmp_path, hospital_port, (orthanc.ae_title, orthanc.port), "dicom-sc")) as hospital:
        hospital.record.film(1, outcome=read(0.9))
        delivery = eventually(lambda: (d := hospital.delivery())["proven_at"] and d)
    assert delivery["proof"].endswith("Storage Commitment by ORTHANC")


def test_what_orthanc_does_not_hold_is_set_aside_with_the_mend(hospital: Hospital, orthanc: Orthanc) -> None:
    """The record believes that it was sent, and Orthanc has lost it."""
    outbox = hospital.record.outbox
    hospital.worker.stop()
    hospital.record.film(1, outcome=read(0.9))
    delivery = hospital.record.deliver("pacs", NOW)
    outbox.sent(delivery.id, "courier", Receipt(object_id="2.25.4711", proof="C-STORE 0x0000", proven=False), NOW)
    hospital.worker = Worker(hospital.settings, [Role.RECEIVE])
    hospital.worker.start()
    peer = Peer(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.port, calling_ae_title="HILUM")
    asked = Association.request(peer, [(commitment.SOP_CLASS, EXPLICIT)], 10.0)
    context = asked.context(commitment.SOP_CLASS)
    assert context is not None
    information = encode(commitment.request(ComprehensiveSRStorage, "2.25.4711"), False, True)
    assert information is not None
    assert asked.action(context, commitment.SOP_INSTANCE, commitment.REQUEST, information) == 0x0000
    asked.release()
    refused = eventually(lambda: (d := hospital.delivery())["state"] == OutboxState.REFUSED and d)
    assert refused["last_error"] == (
        "ORTHANC took the object and does not keep it: it does not hold the object: "
        "see why it let go of what it had taken, then replay (0x0112)"
    )
    assert refused["proven_at"] is None
    assert outbox.replay() == 1


def test_check_says_that_orthanc_commits_itself(orthanc: Orthanc) -> None:
    with closing(channel(orthanc.port, ae_title=orthanc.ae_title)[0]) as asked:
        assert asked.check().endswith("in Explicit VR Little Endian; commits itself to storage")


# A peer that answers on the association on which it was asked, or calls back


def channel(
    port: int, *, ae_title: str = "PACS", idle: float = 0.2, known: int = 1, timeout: float = 5.0
) -> tuple[DicomSr, list[Answer]]:
    """A channel, and what it hears after its sends; `known` is how many deliveries each answer is about."""
    heard: list[Answer] = []

    def told(answer: Answer) -> int:
        heard.append(answer)
        return known

    peer = Peer(ae_title=ae_title, host="127.0.0.1", port=port, calling_ae_title="HILUM")
    reports = Reports(told, patience=0.2)
    return DicomSr(name="pacs", peer=peer, timeout=timeout, idle=idle, reports=reports), heard


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    server = Pacs(tmp_path / "pacs")
    server.start()
    yield server
    server.stop()


def test_an_answer_on_the_same_association_is_heard_while_it_rests(pacs: Pacs) -> None:
    sent, heard = channel(pacs.port)
    with closing(sent):
        receipt = sent.send(flag())
        assert receipt == Receipt(
            object_id=receipt.object_id, proof="C-STORE 0x0000, commitment asked for", proven=False
        )
        (answer,) = eventually(lambda: heard)
    assert answer == Answer(object_id=receipt.object_id, kept=True, words="Storage Commitment by PACS", ae_title="PACS")


def test_an_answer_on_the_same_association_is_heard_before_the_next_flag(pacs: Pacs) -> None:
    opened: list[evt.Event] = []
    pacs._ae._servers[0].bind(evt.EVT_ACCEPTED, opened.append)
    sent, heard = channel(pacs.port, idle=60.0)
    with closing(sent):
        first = sent.send(flag())
        time.sleep(0.5)
        sent.send(flag(revision=2, predecessor=1))
        assert [answer.object_id for answer in heard] == [first.object_id]
    assert len(opened) == 1


def test_an_object_that_was_let_go_is_told_as_such(pacs: Pacs) -> None:
    pacs.forgets = True
    sent, heard = channel(pacs.port)
    with closing(sent):
        receipt = sent.send(flag())
        (answer,) = eventually(lambda: heard)
    assert (answer.object_id, answer.kept) == (receipt.object_id, False)
    assert "does not hold the object" in answer.words


def test_the_built_in_pacs_calls_back_like_orthanc(pacs: Pacs, tmp_path: Path, hospital_port: int) -> None:
    pacs.call_back = ("127.0.0.1", hospital_port)
    with closing(Hospital(tmp_path, hospital_port, ("PACS", pacs.port))) as hospital:
        hospital.record.film(1, outcome=read(0.9))
        delivery = eventually(lambda: (d := hospital.delivery())["proven_at"] and d)
    assert delivery["proof"].endswith("; Storage Commitment by PACS")


def hasty(event: evt.Event) -> tuple[int, None]:
    """The answer to the question before the answer that it was heard, which is allowed (PS3.4 J.3.2)."""
    report(event.assoc, event.action_information.ReferencedSOPSequence)
    return 0x0000, None


def hasty_no(event: evt.Event) -> tuple[int, None]:
    report(event.assoc, [], event.action_information.ReferencedSOPSequence)
    return 0x0000, None


def of_another(event: evt.Event) -> tuple[int, None]:
    other = Dataset()
    other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = ComprehensiveSRStorage, "1.2.3"
    report(event.assoc, [other])
    return 0x0000, None


def report(assoc: PynetdicomAssociation, kept: Any, failed: Any = ()) -> int:
    information = Dataset()
    information.TransactionUID = "1.2.3.4"
    information.ReferencedSOPSequence = list(kept)
    for reference in failed:
        reference.FailureReason = 0x0213
    information.FailedSOPSequence = list(failed)
    status, _ = assoc.send_n_event_report(
        information, 2 if failed else 1, StorageCommitmentPushModel, commitment.SOP_INSTANCE
    )
    return int(status.Status)


@pytest.fixture
def archive(request: pytest.FixtureRequest) -> Iterator[int]:
    """A pynetdicom SCP with a handler of its own for N-ACTION; its port."""
    server = AE("PACS")
    for sop_class in (ComprehensiveSRStorage, Verification, StorageCommitmentPushModel):
        server.add_supported_context(sop_class)
    handlers = [(evt.EVT_C_STORE, lambda _: 0x0000), (evt.EVT_N_ACTION, request.param)]
    running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield int(running.socket.getsockname()[1])
    server.shutdown()


@pytest.mark.parametrize("archive", [hasty], indirect=True)
def test_an_answer_that_comes_at_once_is_in_the_receipt(archive: int) -> None:
    sent, heard = channel(archive)
    with closing(sent):
        receipt = sent.send(flag())
    assert (receipt.proof, receipt.proven) == ("C-STORE 0x0000; Storage Commitment by PACS", True)
    assert not heard, "the record knows nothing of the object yet"


@pytest.mark.parametrize("archive", [hasty_no], indirect=True)
def test_a_no_that_comes_at_once_is_a_refusal(archive: int) -> None:
    sent, _ = channel(archive)
    with closing(sent), pytest.raises(PermanentFailure, match=r"does not keep it: it is out of resources"):
        sent.send(flag())


@pytest.mark.parametrize("archive", [of_another], indirect=True)
def test_an_answer_about_another_object_is_passed_on(archive: int) -> None:
    sent, heard = channel(archive)
    with closing(sent):
        assert not sent.send(flag()).proven
    assert [answer.object_id for answer in heard] == ["1.2.3"]


# Peers that do not, or break off


def test_a_pacs_without_commitment_is_told_by_c_store_alone(tmp_path: Path) -> None:
    plain = Pacs(tmp_path / "pacs", commitment=False)
    plain.start()
    opened: list[evt.Event] = []
    plain._ae._servers[0].bind(evt.EVT_ACCEPTED, opened.append)
    try:
        sent, _ = channel(plain.port, idle=60.0)
        with closing(sent):
            for revision in (1, 2, 3):
                receipt = sent.send(flag(revision=revision))
                assert (receipt.proof, receipt.proven) == ("C-STORE 0x0000, commitment is not offered", True)
            assert len(opened) == 2, "to store, and once to ask apart; not for every flag"
            assert sent.check().endswith("; offers no Storage Commitment: C-STORE is the proof")
    finally:
        plain.stop()


def test_commitment_on_an_association_of_its_own() -> None:
    """A peer that gives the service to those alone who ask for nothing else."""
    server = AE("PACS")
    server.add_supported_context(BasicTextSRStorage)

    def choose(event: evt.Event) -> None:
        proposed = {
            str(c.abstract_syntax) for c in event.assoc.requestor.primitive.presentation_context_definition_list
        }
        alone = proposed == {commitment.SOP_CLASS}
        taken = AE("PACS")
        taken.add_supported_context(StorageCommitmentPushModel if alone else BasicTextSRStorage)
        event.assoc.acceptor.supported_contexts = taken.supported_contexts

    asked: list[str] = []

    def on_action(event: evt.Event) -> tuple[int, None]:
        (reference,) = event.action_information.ReferencedSOPSequence
        asked.append(str(reference.ReferencedSOPClassUID))
        return 0x0000, None

    running = server.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_REQUESTED, choose),
            (evt.EVT_C_STORE, lambda _: 0x0000),
            (evt.EVT_N_ACTION, on_action),
        ],
    )
    try:
        sent, _ = channel(running.socket.getsockname()[1], idle=60.0)
        with closing(sent):
            assert sent.send(flag()).proof == "C-STORE 0x0000, commitment asked for"
            assert sent.check().endswith("; commits itself to storage")
        assert asked == [BasicTextSRStorage]
    finally:
        server.shutdown()


@pytest.mark.parametrize("status", [0x0110, 0x0122, 0x0213, 0xC123])
def test_a_question_that_is_refused_leaves_the_delivery_standing(pacs: Pacs, status: int) -> None:
    pacs.commitment_answer = status
    sent, heard = channel(pacs.port)
    with closing(sent):
        receipt = sent.send(flag())
    assert receipt.proven
    assert receipt.proof.startswith("C-STORE 0x0000, commitment refused: ")
    assert f"0x{status:04X}" in receipt.proof
    assert not heard


def break_off(event: evt.Event) -> tuple[int, None]:
    event.assoc.abort()
    return 0x0000, None


def dawdle(_: evt.Event) -> tuple[int, None]:
    time.sleep(3.0)
    return 0x0000, None


@pytest.mark.parametrize("archive", [break_off, dawdle], indirect=True)
def test_a_peer_that_breaks_off_or_stalls_when_asked_has_the_object_all_the_same(archive: int) -> None:
    sent, _ = channel(archive, timeout=1.0)
    with closing(sent):
        for revision in (1, 2):
            receipt = sent.send(flag(revision=revision))
            assert (receipt.proof, receipt.proven) == ("C-STORE 0x0000, commitment could not be asked for", True)


def flood(event: evt.Event) -> tuple[int, None]:
    """Answers about others without end in place of one to the question."""
    other = of("1.2.3")
    while event.assoc.is_established:
        report(event.assoc, other)
    return 0x0000, None


def swamp(event: evt.Event) -> tuple[int, None]:
    """An answer longer than any that was asked for."""
    information = Dataset()
    information.add_new("PixelData", "OW", bytes(2 << 20))
    event.assoc.send_n_event_report(information, 1, StorageCommitmentPushModel, commitment.SOP_INSTANCE)
    return 0x0000, None


@pytest.mark.parametrize(
    ("archive", "why"), [(flood, "TimeoutError"), (swamp, "AssociationBroken")], indirect=["archive"]
)
def test_a_peer_that_never_stops_talking_is_hung_up_on(
    archive: int, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent, _ = channel(archive, timeout=4.0)
    with closing(sent):
        began = time.monotonic()
        assert sent.send(flag()).proof == "C-STORE 0x0000, commitment could not be asked for"
        assert time.monotonic() - began < 20
    assert f"commitment-not-asked ae=PACS kind={why}" in caplog.text


# The listener, and what strangers may say to it


@pytest.fixture
def quiet_hospital(tmp_path: Path, hospital_port: int) -> Iterator[Hospital]:
    made = Hospital(tmp_path, hospital_port, ("PACS", free_ports(1)[0]))
    made.worker.stop()
    made.record.film(1, outcome=read(0.9))
    delivery = made.record.deliver("pacs", NOW)
    receipt = Receipt(object_id="2.25.4711", proof="C-STORE 0x0000", proven=False)
    made.record.outbox.sent(delivery.id, "courier", receipt, NOW)
    made.worker = Worker(made.settings, [Role.RECEIVE])
    made.worker.start()
    yield made
    made.close()


def call(port: int, *, as_scp: bool = True) -> PynetdicomAssociation:
    caller = AE("PACS")
    caller.add_requested_context(StorageCommitmentPushModel)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if as_scp else []
    assoc = caller.associate("127.0.0.1", port, ae_title="HILUM", ext_neg=roles)
    assert assoc.is_established
    return assoc


def of(*uids: str) -> list[Dataset]:
    references = []
    for uid in uids:
        reference = Dataset()
        reference.ReferencedSOPClassUID = SecondaryCaptureImageStorage
        reference.add_new("ReferencedSOPInstanceUID", "UI", uid)
        references.append(reference)
    return references


def test_an_answer_is_noted_once_and_strangers_are_none_of_our_business(
    quiet_hospital: Hospital, hospital_port: int
) -> None:
    assoc = call(hospital_port)
    assert report(assoc, of("2.25.4711")) == 0x0000
    proven = quiet_hospital.delivery()
    assert proven["proof"] == "C-STORE 0x0000; Storage Commitment by PACS"
    assert report(assoc, of("2.25.1", "2.25.4711"), of("2.25.4711")) == 0x0000
    assert quiet_hospital.delivery() == proven
    assoc.release()


def test_rubbish_is_refused_and_changes_nothing(quiet_hospital: Hospital, hospital_port: int) -> None:
    before = quiet_hospital.delivery()
    assoc = call(hospital_port)
    assert report(assoc, of("no uid", "", "../../2.25.4711")) == 0x0000
    flat = Dataset()
    flat.add_new("ReferencedSOPSequence", "LO", "2.25.4711")
    status, _ = assoc.send_n_event_report(flat, 1, StorageCommitmentPushModel, commitment.SOP_INSTANCE)
    assert status.Status in {0x0000, 0x0115}
    assoc.release()
    assert quiet_hospital.delivery() == before


def test_a_record_that_is_away_lets_the_peer_tell_it_again(quiet_hospital: Hospital, hospital_port: int) -> None:
    kept = quiet_hospital.worker.outbox.committed

    def away(*_: object, **__: object) -> int:
        raise RecordError("the database is away")

    quiet_hospital.worker.outbox.committed = away  # type: ignore[assignment]
    assoc = call(hospital_port)
    assert report(assoc, of("2.25.4711")) == 0x0110
    quiet_hospital.worker.outbox.committed = kept  # type: ignore[method-assign]
    assert report(assoc, of("2.25.4711")) == 0x0000
    assoc.release()
    assert quiet_hospital.delivery()["proven_at"]


def test_a_peer_that_states_no_role_is_heard_as_well(quiet_hospital: Hospital, hospital_port: int) -> None:
    assoc = call(hospital_port, as_scp=False)
    # pynetdicom holds its own requestor to the default roles; some archives do not.
    for context in assoc.accepted_contexts:
        context._as_scp = True
    assert report(assoc, of("2.25.4711")) == 0x0000
    assoc.release()
    assert quiet_hospital.delivery()["proven_at"]
