"""Reading tasks at a strict UPS manager: one for a study, from its first flag to its last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from pynetdicom import AE

from schemas.decision import Urgency
from schemas.errors import PermanentFailure, TransientFailure
from schemas.flag import Flag, Receipt, Withdrawal
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, STUDY, VALID, film, flag
from tests.ups_manager import UpsManager
from worker.notify.association import Peer
from worker.notify.dicom_ups import DicomUps

PRIORITIES = {Urgency.STAT: "HIGH", Urgency.URGENT: "MEDIUM", Urgency.ROUTINE: "LOW"}


@pytest.fixture
def manager() -> Iterator[UpsManager]:
    manager = UpsManager()
    manager.start()
    yield manager
    manager.stop()


def send(manager: UpsManager, told: Flag, *, calling: str = "HILUM") -> Receipt:
    peer = Peer(ae_title="UPSMANAGER", host="127.0.0.1", port=manager.port, calling_ae_title=calling)
    with closing(DicomUps(name="tasks", peer=peer, timeout=5.0)) as channel:
        return channel.send(told)


def after(receipt: Receipt, revision: int, *, urgency: Urgency = Urgency.STAT) -> Flag:
    """The revision that follows on what the receipt is of."""
    reasons = {Urgency.STAT: [PNEUMOTHORAX], Urgency.URGENT: [EFFUSION], Urgency.ROUTINE: []}
    told = flag(film(reasons=reasons[urgency]), revision=revision, predecessor=revision - 1)
    return replace(told, predecessor_object_id=receipt.object_id)


def withdrawn(receipt: Receipt, revision: int, why: Withdrawal = Withdrawal.PERSON) -> Flag:
    return replace(after(receipt, revision, urgency=Urgency.ROUTINE), withdrawn=why)


def uid(receipt: Receipt) -> str:
    return receipt.object_id.partition("#")[0]


@pytest.mark.parametrize("name", [name for name in VALID if not name.startswith("withdrawn")])
def test_every_flag_makes_a_task_that_the_manager_takes(manager: UpsManager, name: str) -> None:
    told = replace(VALID[name], predecessor=None)
    send(manager, told)
    (task,) = manager.tasks.values()
    assert task.ScheduledProcedureStepPriority == PRIORITIES[told.urgency]
    assert task.StudyInstanceUID == STUDY
    assert task.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"
    assert len(task.ScheduledProcessingParametersSequence) == len(told.reasons)
    films = [f for series in task.InputInformationSequence for f in series.ReferencedSOPSequence]
    assert {f.ReferencedSOPInstanceUID for f in films} == {f.instance.sop_uid for f in told.films}


def test_only_the_reasons_are_told_never_a_silent_probability(manager: UpsManager) -> None:
    send(manager, flag())
    (task,) = manager.tasks.values()
    assert "0.91" in task.CommentsOnTheScheduledProcedureStep
    assert "0.4321" not in str(task)
    assert "0.0123" not in str(task)


def test_a_rise_is_of_the_same_task(manager: UpsManager) -> None:
    first = send(manager, flag(film(reasons=[EFFUSION])))
    second = send(manager, after(first, 2))
    assert uid(first) == uid(second)
    assert first.object_id != second.object_id
    assert [operation for operation, *_ in manager.messages] == ["create", "set"]
    (task,) = manager.tasks.values()
    assert task.ScheduledProcedureStepPriority == "HIGH"
    assert "revision 2" in task.CommentsOnTheScheduledProcedureStep


def test_a_stat_order_is_no_less_than_that(manager: UpsManager) -> None:
    send(manager, replace(flag(film()), order_urgency=Urgency.STAT))
    (task,) = manager.tasks.values()
    assert task.ScheduledProcedureStepPriority == "HIGH"


def test_what_was_lost_on_its_way_back_is_found_there_and_says_what_the_later_flag_says(manager: UpsManager) -> None:
    send(manager, flag(film(reasons=[EFFUSION])))
    again = send(manager, flag(film(reasons=[EFFUSION])))
    assert again.proof == "N-SET 0x0000"
    send(manager, flag(revision=2))  # this destination is not known to have taken any
    (task,) = manager.tasks.values()
    assert task.ScheduledProcedureStepPriority == "HIGH"


def test_after_a_withdrawal_there_is_a_new_task_and_always_the_same(manager: UpsManager) -> None:
    first = send(manager, flag())
    taken_back = send(manager, withdrawn(first, 2))
    assert manager.tasks[uid(first)].ProcedureStepState == "CANCELED"
    raised = [send(manager, after(taken_back, 3)) for _ in range(2)]
    assert raised[0].object_id == raised[1].object_id
    assert uid(raised[0]) != uid(first)
    risen = send(manager, after(raised[0], 4))
    assert uid(risen) == uid(raised[0])
    assert [task.ProcedureStepState for task in manager.tasks.values()] == ["CANCELED", "SCHEDULED"]
    send(manager, withdrawn(risen, 5))
    assert manager.tasks[uid(risen)].ProcedureStepState == "CANCELED"


def test_after_a_withdrawal_also_what_raises_nothing_has_a_task(manager: UpsManager) -> None:
    taken_back = send(manager, withdrawn(send(manager, flag()), 2))
    listed = send(manager, after(taken_back, 3, urgency=Urgency.ROUTINE))
    assert listed.proof == "N-CREATE 0x0000"
    assert manager.tasks[uid(listed)].ScheduledProcedureStepPriority == "LOW"


def test_a_task_that_the_manager_lost_is_made_again(manager: UpsManager) -> None:
    first = send(manager, flag(film(reasons=[EFFUSION])))
    manager.tasks.clear()
    second = send(manager, after(first, 2))
    assert (uid(second), second.proof) == (uid(first), "N-CREATE 0x0000")


def test_who_reads_it_already_needs_no_raising(manager: UpsManager) -> None:
    first = send(manager, flag(film(reasons=[EFFUSION])))
    manager.tasks[uid(first)].ProcedureStepState = "IN PROGRESS"
    assert send(manager, after(first, 2)).proof == "N-SET 0xC301, somebody is reading it already"
    assert len(manager.tasks) == 1


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELED"])
def test_what_raises_a_study_whose_task_is_closed_makes_another(manager: UpsManager, state: str) -> None:
    first = send(manager, flag(film(reasons=[EFFUSION])))
    manager.tasks[uid(first)].ProcedureStepState = state
    second, again = send(manager, after(first, 2)), send(manager, after(first, 2))
    assert uid(second) != uid(first)
    assert again.object_id == second.object_id
    assert len(manager.tasks) == 2
    third = send(manager, after(second, 3))
    assert uid(third) == uid(second)
    manager.tasks[uid(second)].ProcedureStepState = state
    assert send(manager, after(first, 2)).proof == "N-SET 0xC300, it was closed there already"


def test_what_raises_nothing_leaves_a_closed_task_closed(manager: UpsManager) -> None:
    first = send(manager, flag(film()))
    manager.tasks[uid(first)].ProcedureStepState = "COMPLETED"
    assert send(manager, after(first, 2, urgency=Urgency.ROUTINE)).proof.startswith("N-SET 0xC300")
    assert len(manager.tasks) == 1


@pytest.mark.parametrize(
    ("state", "why", "proof"),
    [
        ("SCHEDULED", Withdrawal.PERSON, "N-ACTION 0x0000"),
        ("CANCELED", Withdrawal.PERSON, "N-ACTION 0xB304, it was cancelled already"),
        ("COMPLETED", Withdrawal.REPORTED, "N-ACTION 0xC311, it was completed already"),
        ("IN PROGRESS", Withdrawal.REPORTED, "N-ACTION 0xC312, who has it in hand will close it"),
        (None, Withdrawal.MODEL, "N-ACTION 0xC307, it is not there"),
    ],
)
def test_taken_back(manager: UpsManager, state: str | None, why: Withdrawal, proof: str) -> None:
    first = send(manager, flag())
    if state is None:
        manager.tasks.clear()
    else:
        manager.tasks[uid(first)].ProcedureStepState = state
    assert send(manager, withdrawn(first, 2, why)).proof == proof


def test_a_reader_who_cannot_be_told_is_a_matter_for_a_person(manager: UpsManager) -> None:
    first = send(manager, flag())
    manager.tasks[uid(first)].ProcedureStepState = "IN PROGRESS"
    with pytest.raises(PermanentFailure, match="cannot tell whoever is reading"):
        send(manager, withdrawn(first, 2, Withdrawal.PATIENT))


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        *((status, TransientFailure) for status in (0x0110, 0x0213, 0xA700, 0xA7FF)),
        *((status, PermanentFailure) for status in (0x0105, 0x0120, 0x0122, 0x0124, 0x0211, 0xC309, 0xC310, 0xC999)),
    ],
)
def test_failures(manager: UpsManager, status: int, failure: type[Exception]) -> None:
    manager.answer = status
    with pytest.raises(failure, match=f"0x{status:04X}") as raised:
        send(manager, flag())
    assert "Doe" not in str(raised.value)


def test_check_says_what_it_is_for_and_what_is_missing(manager: UpsManager) -> None:
    peer = Peer(ae_title="UPSMANAGER", host="127.0.0.1", port=manager.port, calling_ae_title="HILUM")
    channel = DicomUps(name="tasks", peer=peer, timeout=5.0)
    assert "takes reading tasks in Explicit VR Little Endian" in channel.check()
    ae = AE()
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        elsewhere = replace(peer, port=server.socket.getsockname()[1])
        with pytest.raises(PermanentFailure, match="does not accept UPS Push"):
            DicomUps(name="tasks", peer=elsewhere, timeout=5.0).check()
    finally:
        server.shutdown()


def test_a_manager_that_speaks_implicit_vr_alone() -> None:
    manager = UpsManager(syntaxes=("1.2.840.10008.1.2",))
    manager.start()
    try:
        first = send(manager, VALID["Japanese"])
        send(manager, withdrawn(first, 2))
    finally:
        manager.stop()
    assert str(manager.messages[0][2].PatientName).startswith("Yamada^Tarou=山田")
