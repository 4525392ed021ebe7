"""What may be sent: everything that can be kept, in the sender's order of preference."""

from __future__ import annotations

import pytest
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import (
    MediaStorageDirectoryStorage,  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,  # type: ignore[attr-defined]
    StorageCommitmentPushModel,  # type: ignore[attr-defined]
    Verification,  # type: ignore[attr-defined]
)

from worker.receive.negotiation import contexts_for, is_storage, refused

DX = "1.2.840.10008.5.1.4.1.1.1.1"
IMPLICIT, EXPLICIT, JPEG, MPEG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.100",
)
USABLE = (IMPLICIT, EXPLICIT, JPEG)
NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "uid",
    [
        *(str(context.abstract_syntax) for context in AllStoragePresentationContexts),
        "1.2.840.10008.5.1.4.1.1.3",  # retired: Ultrasound Multi-frame Image Storage
        "1.2.840.10008.5.1.4.1.1.9999",  # newer than we are
        "1.3.12.2.1107.5.9.1",  # private
    ],
)
def test_whatever_may_be_an_instance_is_taken(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        Verification,
        MediaStorageDirectoryStorage,
        StorageCommitmentPushModel,
        ModalityWorklistInformationFind,
        PatientRootQueryRetrieveInformationModelFind,
        "1.2.840.10008.5.1.4.1.1.200.4",  # a query of the same root
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.99",
    ],
)
def test_what_is_no_storage_is_not_taken_for_it(uid: str) -> None:
    assert not is_storage(uid)


def test_the_senders_first_syntax_that_can_be_decoded_comes_first() -> None:
    (context,) = contexts_for(((DX, (MPEG, JPEG, IMPLICIT)), (DX, (EXPLICIT, IMPLICIT))), USABLE, NONE)
    assert context.transfer_syntax == [JPEG, IMPLICIT, EXPLICIT]


def test_services_are_taken_where_they_are_offered() -> None:
    find = str(ModalityWorklistInformationFind)
    proposal = ((find, (IMPLICIT,)), (str(Verification), (IMPLICIT,)))
    assert [str(c.abstract_syntax) for c in contexts_for(proposal, USABLE, NONE)] == [str(Verification)]
    assert len(contexts_for(proposal, USABLE, frozenset({find}))) == 2


def test_a_service_may_be_offered_to_us_by_whom_we_asked_for_it() -> None:
    """Storage Commitment: the archive reports as SCP on an association that it requests (PS3.7 D.3.3.4)."""
    commitment = str(StorageCommitmentPushModel)
    service, storage = contexts_for(((commitment, (IMPLICIT,)), (DX, (IMPLICIT,))), USABLE, frozenset({commitment}))
    assert (service.scu_role, service.scp_role) == (True, True)
    assert (storage.scu_role, storage.scp_role) == (None, None)


def test_what_is_refused_is_said_in_words() -> None:
    proposal = ((str(StorageCommitmentPushModel), (IMPLICIT,)), (DX, (MPEG,)))
    (what, mend), (syntax, advice) = refused(proposal, set(), USABLE)
    assert what == "SOP class refused: Storage Commitment Push Model SOP Class"
    assert "storage" in mend
    assert syntax.startswith("transfer syntax refused: MPEG2")
    assert "Explicit VR Little Endian" in advice


def test_a_syntax_that_is_offered_among_others_is_no_loss() -> None:
    assert refused(((DX, (MPEG,)), (DX, (EXPLICIT,))), {DX}, USABLE) == []


def test_a_hundred_refusals_are_one_line() -> None:
    ((what, _),) = refused(tuple((f"1.2.840.10008.99.{n}", (IMPLICIT,)) for n in range(100)), set(), USABLE)
    assert what.endswith("and 92 more")
