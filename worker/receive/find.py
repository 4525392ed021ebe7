"""C-FIND responses as they go over the wire (PS3.7 9.3.2, PS3.8 9.3.5): framed here, many in one write.

pynetdicom makes six objects and two queue entries of each response, some 2 ms; ten thousand open studies would take
twenty seconds. All Pending responses to one query have the same command set, so it is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from struct import pack
from typing import Final

from pynetdicom.dimse_messages import C_FIND_RSP
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode

from worker.ports import Matches

SUCCESS: Final = 0x0000
CANCELLED: Final = 0xFE00
UNABLE_TO_PROCESS: Final = 0xC001

_BATCH: Final = 64 << 10  # bytes in one write; a C-CANCEL is seen between two
_SMALLEST_PDU: Final = 128  # bytes; who claims to take less gets this much all the same
_P_DATA_TF: Final = 0x04
_COMMAND, _DATA_SET, _LAST = 0x01, 0x00, 0x02


def response(request: C_FIND, status: int, comment: str = "") -> C_FIND:
    """The response to `request` without an identifier."""
    said = C_FIND()
    said.MessageIDBeingRespondedTo = request.MessageID
    said.AffectedSOPClassUID = request.AffectedSOPClassUID
    said.Status = status
    if comment:
        said.ErrorComment = comment
    return said


def batches(request: C_FIND, context_id: int, matches: Matches, max_pdu: int) -> Iterator[bytes]:
    """Every Pending response as encoded P-DATA-TF, some at a time. `max_pdu` is what the peer takes, 0 for any."""
    said = response(request, matches.status)
    said.Identifier = BytesIO(b"\0\0")  # that there is one belongs to the command set
    message = C_FIND_RSP()
    message.primitive_to_message(said)
    command = _framed(context_id, _COMMAND, encode(message.command_set, True, True) or b"", max_pdu)
    batch = bytearray()
    for identifier in matches.identifiers:
        batch += command
        batch += _framed(context_id, _DATA_SET, identifier, max_pdu)
        if len(batch) >= _BATCH:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def _framed(context_id: int, kind: int, value: bytes, max_pdu: int) -> bytes:
    """A command set or a data set as P-DATA-TF, each with one fragment."""
    most = (max(max_pdu, _SMALLEST_PDU) - 6) & ~1 if max_pdu else len(value)
    if len(value) <= most:
        return pack(">BxIIBB", _P_DATA_TF, len(value) + 6, len(value) + 2, context_id, kind | _LAST) + value
    pieces = [value[start : start + most] for start in range(0, len(value), most)]
    framed = [pack(">BxIIBB", _P_DATA_TF, len(p) + 6, len(p) + 2, context_id, kind) + p for p in pieces[:-1]]
    return b"".join(framed) + _framed(context_id, kind, pieces[-1], max_pdu)
