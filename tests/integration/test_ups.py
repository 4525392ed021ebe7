"""Unified Procedure Steps, as pynetdicom's own clients see them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from schemas.flag import Withdrawal
from tests.contract.record.given import after
from tests.integration.open_windows import House, associated, find, open_house
from tests.integration.test_mwl import fill
from worker.decide.routing import recipients
from worker.receive.listener import ExtraHandler
from worker.record.studies import one

PULL, PUSH, QUERY = map(str, (UnifiedProcedureStepPull, UnifiedProcedureStepPush, UnifiedProcedureStepQuery))
CLAIM = 1  # Action Type ID, CC.2.1.1


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        fill(house)
        yield house


def uids(house: House) -> dict[str, str]:
    """SOP Instance UID of each patient's step, in order."""
    query = Dataset()
    query.SOPInstanceUID = query.PatientID = ""
    return {step.PatientID: step.SOPInstanceUID for step in find(house, PULL, query)[0]}


def test_pynetdicoms_findscu_sees_the_list_in_reading_order(house: House, tmp_path: Path) -> None:
    keys = ("PatientID=", "ScheduledProcedureStepPriority=", "ProcedureStepState=SCHEDULED", "SOPInstanceUID=")
    asked = [sys.executable, "-m", "pynetdicom", "findscu", "-U", "-w", "-q", "-aec", "HILUM"]
    asked += [*(word for key in keys for word in ("-k", key)), "127.0.0.1", str(house.port)]
    subprocess.run(asked, check=True, capture_output=True, cwd=tmp_path, timeout=60)
    steps = [dcmread(path, force=True) for path in sorted(tmp_path.glob("rsp*"))]
    assert [step.PatientID for step in steps] == ["P2", "P3", "P1", "P4"]
    assert [step.ScheduledProcedureStepPriority for step in steps] == ["HIGH", "MEDIUM", "LOW", "LOW"]


def test_ups_query_is_the_same_list(house: House) -> None:
    query = Dataset()
    query.PatientID = ""
    assert [step.PatientID for step in find(house, QUERY, query)[0]] == ["P2", "P3", "P1", "P4"]


def test_a_step_has_the_same_uid_whenever_it_is_asked_for(house: House) -> None:
    first = uids(house)
    assert len(set(first.values())) == 4
    assert uids(house) == first


def test_get_one_step(house: House) -> None:
    uid = uids(house)["P2"]
    with associated(house, PULL) as association:
        status, whole = association.send_n_get([], PUSH, uid, meta_uid=PULL)
        assert status.Status == 0x0000
        tags = [0x00100010, 0x00741200]
        status, part = association.send_n_get(tags, PUSH, uid, meta_uid=PULL)
    assert (whole.SOPInstanceUID, whole.ProcedureStepState) == (uid, "SCHEDULED")
    assert str(whole.PatientName) == "Müller^Jörg"
    assert whole.InputInformationSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.2.1.1"
    assert "TransactionUID" not in whole
    assert sorted(e.tag for e in part if e.keyword != "SpecificCharacterSet") == tags


def test_what_was_reported_is_no_step_any_more(house: House) -> None:
    uid = uids(house)["P2"]
    house.record.studies.withdraw(one("1.2.3.2"), Withdrawal.REPORTED, partial(recipients, []), after(99))
    with associated(house, PULL) as association:
        status, _ = association.send_n_get([], PUSH, uid, meta_uid=PULL)
    assert status.Status == 0xC307
    assert "P2" not in uids(house)


def test_whoever_wants_to_change_a_step_may_not(house: House) -> None:
    uid = uids(house)["P1"]
    claim, change = Dataset(), Dataset()
    claim.TransactionUID, claim.ProcedureStepState = "1.2.3", "IN PROGRESS"
    change.ScheduledProcedureStepPriority = "HIGH"
    with associated(house, PULL) as association:
        claimed, _ = association.send_n_action(claim, CLAIM, PUSH, uid, meta_uid=PULL)
        changed, _ = association.send_n_set(change, PUSH, uid, meta_uid=PULL)
    for said in (claimed, changed):
        assert said.Status == 0x0124
        assert "read-only" in said.ErrorComment
    assert list(uids(house)) == ["P2", "P3", "P1", "P4"]


def test_an_operation_goes_to_the_service_that_it_is_of(tmp_path: Path) -> None:
    asked: list[str] = []

    def commit(event: evt.Event) -> tuple[int, None]:
        asked.append(event.action_information.TransactionUID)
        return 0x0000, None

    commitment = ExtraHandler(frozenset({str(StorageCommitmentPushModel)}), evt.EVT_N_ACTION, commit)
    information = Dataset()
    information.TransactionUID = "1.2.3"
    with (
        open_house(tmp_path, extra=[commitment]) as house,
        associated(house, PULL, str(StorageCommitmentPushModel)) as association,
    ):
        kept, _ = association.send_n_action(information, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        claimed, _ = association.send_n_action(information, CLAIM, PUSH, "2.25.1", meta_uid=PULL)
    assert (kept.Status, claimed.Status, asked) == (0x0000, 0x0124, ["1.2.3"])


def test_push_and_watch_are_not_offered(house: House) -> None:
    with associated(house, PULL, PUSH, str(UnifiedProcedureStepWatch)) as association:
        assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [PULL]
