"""What a status or a rejection means: delivered, try again, or a person must act."""

from __future__ import annotations

import pytest

from schemas.errors import PermanentFailure, TransientFailure
from worker.notify.association import AssociationRejected, Peer
from worker.notify.dicom_store import proof, rejection

PEER = Peer(ae_title="PACS", host="pacs.example", port=104, calling_ae_title="HILUM")


@pytest.mark.parametrize("status", [0x0000, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123])
def test_delivered(status: int) -> None:
    said = proof(status, PEER)
    assert said.startswith(f"C-STORE 0x{status:04X}")
    assert (said == "C-STORE 0x0000") == (status == 0)


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0110, 0x0210, 0xFE00])
def test_again_later(status: int) -> None:
    with pytest.raises(TransientFailure, match=f"0x{status:04X}"):
        proof(status, PEER)


@pytest.mark.parametrize(
    "status", [0xA900, 0xA9FF, 0xC000, 0xC123, 0xCFFF, 0x0117, 0x0122, 0x0124, 0x0211, 0x0212, 0x0001, 0xFFFF, 0xA800]
)
def test_a_person_must_act(status: int) -> None:
    with pytest.raises(PermanentFailure, match=f"PACS@pacs.example:104.*0x{status:04X}"):
        proof(status, PEER)


@pytest.mark.parametrize(
    ("result", "source", "reason", "failure", "words"),
    [
        (1, 1, 3, PermanentFailure, "does not know the calling AE title HILUM: add it there"),
        (2, 1, 3, PermanentFailure, "add it there"),
        (1, 1, 7, PermanentFailure, "does not answer to the AE title PACS: mend ae_title"),
        (1, 1, 1, PermanentFailure, "rejected the association"),
        (1, 1, 2, PermanentFailure, "rejected the association"),
        (1, 2, 2, PermanentFailure, "rejected the association"),
        (2, 1, 1, TransientFailure, "rejected the association"),
        (2, 3, 1, TransientFailure, "no association to spare"),
        (2, 3, 2, TransientFailure, "no association to spare"),
        (1, 3, 2, TransientFailure, "no association to spare"),
    ],
)
def test_rejections(result: int, source: int, reason: int, failure: type[Exception], words: str) -> None:
    error = rejection(AssociationRejected(result, source, reason, "why"), PEER)
    assert type(error) is failure
    assert words in str(error)
