"""An association that hilum requests, on one blocking socket (PS3.8), for C-STORE and C-ECHO (PS3.7).

pynetdicom encodes and decodes; the talking is done here. Its own requestor runs on three threads that poll every
millisecond, sends the command and the data set apart, and has no limit on how long a stalled peer may hold it: to
dcmtk's storescp a report took 90 ms. One write and one read in the caller's thread take 1 to 2 ms, and every wait ends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, NamedTuple

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

_ACCEPTED, _REJECTED, _DATA, _RELEASE, _RELEASED, _ABORTED = 2, 3, 4, 5, 6, 7  # PDU types, PS3.8 9.3
_MAX_PDU: Final = 16 * 1024  # what we take at once; answers have some 150 bytes
_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_VERIFICATION: Final = "1.2.840.10008.1.1"
_QUICK_ACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux


class AssociationBroken(Exception):
    """The peer aborted, released or went away, or what it said was not DICOM."""


class AssociationRejected(Exception):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4).

    Attributes
    ----------
    result, source, reason:
        The fields of the PDU: 1 permanent or 2 transient; who rejects; why.
    """

    def __init__(self, result: int, source: int, reason: int, words: str) -> None:
        super().__init__(words)
        self.result, self.source, self.reason = result, source, reason


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who is called, and by which name."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class Context(NamedTuple):
    """A presentation context that was accepted."""

    id: int
    sop_class: str
    transfer_syntax: str


class Association:
    """Established by `request`; belongs to one thread, save `abort`, which any thread may call."""

    def __init__(self, connection: socket.socket, contexts: Sequence[Context], max_pdu: int, timeout: float) -> None:
        self._socket = connection
        self._max_pdu = max_pdu  # bytes that the peer takes at once, 0 for any
        self._timeout = timeout
        self._message_id = 0
        self.contexts = contexts

    @classmethod
    def request(cls, peer: Peer, contexts: Sequence[tuple[str, str]], timeout: float) -> Association:
        """Connect and negotiate `contexts`, pairs of SOP Class and Transfer Syntax UID.

        `timeout` is in seconds, of connecting and of every exchange with the peer.

        Raises
        ------
        AssociationRejected, AssociationBroken, OSError
            OSError for what the network says; TimeoutError among it.
        """
        connection = socket.create_connection((peer.host, peer.port), timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_request(peer, contexts))
            kind, pdu = _read(connection, time.monotonic() + timeout)
            with _decoding():
                if kind == _REJECTED:
                    raise _rejection(pdu)
                if kind != _ACCEPTED:
                    raise AssociationBroken(_BREAKS.get(kind, "answered the request with what is no answer"))
                accepted, max_pdu = _acceptance(pdu, contexts)
        except BaseException:
            connection.close()
            raise
        return cls(connection, accepted, max_pdu, timeout)

    def context(self, sop_class: str) -> Context | None:
        """The first accepted context of `sop_class`, in the order in which they were proposed."""
        return next((context for context in self.contexts if context.sop_class == sop_class), None)

    def store(self, context: Context, sop_uid: str, dataset: bytes) -> int:
        """C-STORE a data set that is encoded in the context's transfer syntax; the status that it is answered with.

        Raises
        ------
        AssociationBroken, OSError
            The association is of no more use.
        """
        command = C_STORE()
        command.AffectedSOPClassUID = UID(context.sop_class)
        command.AffectedSOPInstanceUID = UID(sop_uid)
        command.Priority = 0x0000
        command.DataSet = BytesIO(dataset)
        return self._exchange(C_STORE_RQ(), command, context.id)

    def echo(self) -> int | None:
        """C-ECHO; its status, or None where the peer does not offer Verification. Raises as `store`."""
        context = self.context(_VERIFICATION)
        if context is None:
            return None
        command = C_ECHO()
        command.AffectedSOPClassUID = UID(_VERIFICATION)
        return self._exchange(C_ECHO_RQ(), command, context.id)

    def is_quiet(self) -> bool:
        """Whether the peer has said nothing since the last exchange: a release, an abort, the end of the stream."""
        try:
            return not select.select([self._socket], [], [], 0)[0]
        except (OSError, ValueError):  # closed here
            return False

    def release(self, patience: float = 1.0) -> None:
        """End the association politely; the peer has `patience` seconds to agree."""
        with contextlib.suppress(OSError, AssociationBroken), self._socket:
            self._socket.settimeout(patience)
            self._socket.sendall(A_RELEASE_RQ().encode())
            _read(self._socket, time.monotonic() + patience)

    def abort(self) -> None:
        """End it at once; who waits in `store` gets `AssociationBroken` or OSError."""
        with contextlib.suppress(OSError), self._socket:
            self._socket.settimeout(0)
            self._socket.send(_abort())
            self._socket.shutdown(socket.SHUT_RDWR)

    def _exchange(self, message: DIMSEMessage, command: Any, context_id: int) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        command.MessageID = self._message_id
        message.primitive_to_message(command)
        pdus = b"".join(P_DATA_TF(data).encode() for data in message.encode_msg(context_id, self._max_pdu))
        deadline = time.monotonic() + self._timeout
        self._socket.settimeout(self._timeout)
        self._socket.sendall(pdus)  # in one piece: a second write would wait for the peer's delayed acknowledgement
        answer = DIMSEMessage()
        while True:
            kind, pdu = _read(self._socket, deadline)
            if kind == _RELEASE:
                self._socket.sendall(A_RELEASE_RP().encode())
            if kind != _DATA:
                raise AssociationBroken(_BREAKS.get(kind, "sent a PDU that has no place here"))
            with _decoding():
                data = P_DATA_TF()
                data.decode(pdu)
                if answer.decode_msg(data.to_primitive()):
                    response = answer.message_to_primitive()
                    if response.MessageIDBeingRespondedTo != self._message_id:
                        raise AssociationBroken("answered another message than it was sent")
                    return int(response.Status)


_BREAKS: Final[Mapping[int, str]] = {_RELEASE: "released the association", _ABORTED: "aborted the association"}


def _request(peer: Peer, contexts: Sequence[tuple[str, str]]) -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = UID(_APPLICATION_CONTEXT)
    request.calling_ae_title = peer.calling_ae_title
    request.called_ae_title = peer.ae_title
    request.presentation_context_definition_list = [
        _proposed(index, sop_class, syntax) for index, (sop_class, syntax) in enumerate(contexts)
    ]
    length = MaximumLengthNotification()
    length.maximum_length_received = _MAX_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    request.user_information = [length, implementation, version]
    return bytes(A_ASSOCIATE_RQ(request).encode())


def _proposed(index: int, sop_class: str, syntax: str) -> PresentationContext:
    context = PresentationContext()
    context.context_id = 2 * index + 1  # odd, PS3.8 9.3.2.2
    context.abstract_syntax = UID(sop_class)
    context.transfer_syntax = [UID(syntax)]
    return context


def _acceptance(pdu: bytes, proposed: Sequence[tuple[str, str]]) -> tuple[list[Context], int]:
    accept = A_ASSOCIATE_AC()
    accept.decode(pdu)
    primitive = accept.to_primitive()
    taken = {c.context_id for c in primitive.presentation_context_definition_results_list if c.result == 0}
    contexts = [
        Context(2 * index + 1, sop_class, syntax)
        for index, (sop_class, syntax) in enumerate(proposed)
        if 2 * index + 1 in taken
    ]
    return contexts, int(primitive.maximum_length_received or 0)


def _rejection(pdu: bytes) -> AssociationRejected:
    reject = A_ASSOCIATE_RJ()
    reject.decode(pdu)
    primitive = reject.to_primitive()
    return AssociationRejected(reject.result, reject.source, reject.reason_diagnostic, primitive.reason_str)


def _abort() -> bytes:
    abort = A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = 0, 0  # the service user, PS3.8 9.3.8
    return bytes(abort.encode())


def _read(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """The next PDU whole, header included, and its type."""
    header = _receive(connection, 6, deadline)
    kind, length = struct.unpack(">BxL", header)
    if length > 64 * _MAX_PDU:
        raise AssociationBroken("sent a PDU far longer than agreed")
    return kind, header + _receive(connection, length, deadline)


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        connection.settimeout(left)
        if _QUICK_ACK is not None:  # not lasting: asked for anew before every read
            connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise AssociationBroken("closed the connection")
        received += chunk
    return bytes(received)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (AssociationBroken, AssociationRejected):
        raise
    except Exception as error:  # what pynetdicom raises on bytes that are no PDU is documented nowhere
        raise AssociationBroken(f"sent what cannot be decoded ({type(error).__name__})") from error
