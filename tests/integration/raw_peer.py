"""A peer that speaks PS3.8 by hand, so that it can also misspeak it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from io import BytesIO
from struct import pack, unpack

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

DX = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, ABORT = 0x02, 0x03, 0x04, 0x06, 0x07
COMMAND, LAST = 0x01, 0x02


def pdu(kind: int, body: bytes) -> bytes:
    return pack(">BxI", kind, len(body)) + body


def pdv(context: int, control: int, value: bytes) -> bytes:
    return pack(">IBB", len(value) + 2, context, control) + value


def item(kind: int, body: bytes) -> bytes:
    return pack(">BxH", kind, len(body)) + body


def encode(ds: Dataset, *, implicit: bool = False) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, implicit
    write_dataset(out, ds)
    return bytes(out.getvalue())


def film(sop_uid: str, *, pixels: bytes = b"\1\2" * 500, sop_class: str = DX) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_uid
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "Phantom^Chest", "DX"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.1", "1.2.2"
    ds.add_new(0x7FE00010, "OW", pixels)
    return ds


def associate_rq(
    *,
    called: bytes = b"HILUM",
    calling: bytes = b"RAW",
    contexts: Sequence[tuple[str, Sequence[str]]] = ((DX, [EXPLICIT]), (VERIFICATION, [IMPLICIT])),
    max_pdu: int = 16384,
) -> bytes:
    body = pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for n, (abstract, syntaxes) in enumerate(contexts):
        names = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
        body += item(0x20, bytes([2 * n + 1, 0, 0, 0]) + names)
    return pdu(0x01, body + item(0x50, item(0x51, pack(">I", max_pdu)) + item(0x52, b"1.2.3")))


def command(field: int, *, message_id: int = 1, has_data: bool = True, **elements: object) -> bytes:
    ds = Dataset()
    ds.CommandField, ds.MessageID, ds.CommandDataSetType = field, message_id, 0 if has_data else 0x0101
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    body = encode(ds, implicit=True)
    return pack("<HHII", 0, 0, 4, len(body)) + body


def store_rq(sop_uid: str, *, sop_class: str = DX, message_id: int = 1, has_data: bool = True) -> bytes:
    return command(
        0x0001,
        message_id=message_id,
        has_data=has_data,
        AffectedSOPClassUID=sop_class,
        AffectedSOPInstanceUID=sop_uid,
        Priority=0,
    )


class RawPeer:
    """One connection."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and body; (0, b"") when the connection is closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = unpack(">BxI", header)
        return kind, self._exactly(length)

    def associate(self, **how: object) -> tuple[int, bytes]:
        self.send(associate_rq(**how))  # type: ignore[arg-type]
        return self.receive()

    def send_store(self, ds: Dataset, *, fragment: int = 16000, message_id: int = 1) -> None:
        raw = encode(ds)
        self.send(pdu(P_DATA, pdv(1, COMMAND | LAST, store_rq(ds.SOPInstanceUID, sop_class=DX, message_id=message_id))))
        for at in range(0, len(raw), fragment):
            last = LAST if at + fragment >= len(raw) else 0
            self.send(pdu(P_DATA, pdv(1, last, raw[at : at + fragment])))

    def response(self) -> Dataset:
        """The command set of the next DIMSE response."""
        kind, body = self.receive()
        assert kind == P_DATA, f"PDU type {kind} in place of a response"
        return read_dataset(BytesIO(body[6:]), is_implicit_VR=True, is_little_endian=True)

    def store(self, ds: Dataset, **how: int) -> int:
        self.send_store(ds, **how)
        return int(self.response().Status)

    def release(self) -> tuple[int, bytes]:
        self.send(pdu(0x05, bytes(4)))
        return self.receive()

    def abort(self) -> None:
        self.send(pdu(ABORT, bytes(4)))

    def _exactly(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            try:
                chunk = self.connection.recv(size - len(raw))
            except ConnectionResetError:
                break
            if not chunk:
                break
            raw += chunk
        return raw
