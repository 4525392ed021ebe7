"""An association that hilum requests, on one blocking socket (PS3.8), for C-STORE, C-ECHO and N-ACTION (PS3.7).

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeAlias

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_ACTION_RQ, N_EVENT_REPORT_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import decode
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
IMPLEMENTATION_CLASS_UID: Final = str(PYNETDICOM_IMPLEMENTATION_UID)
IMPLEMENTATION_VERSION_NAME: Final = str(PYNETDICOM_IMPLEMENTATION_VERSION)
MAX_PDU: Final = 16 * 1024  # what we take at once; answers have some 150 bytes
_MAX_MESSAGE: Final = 1 << 20  # bytes of an event report; one of a thousand objects has 100 KiB
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


# Told of an N-EVENT-REPORT that the peer sends on the association (its Event Information); the status to answer with.
OnEvent: TypeAlias = Callable[[Dataset], int]


def unexpected(_: Dataset) -> int:
    """For associations on which no event was asked for: 0x0211, Unrecognised Operation."""
    return 0x0211


class Association:
    """Established by `request`; belongs to one thread, save `abort`, which any thread may call."""

    def __init__(
        self,
        connection: socket.socket,
        contexts: Sequence[Context],
        max_pdu: int,
        timeout: float,
        on_event: OnEvent = unexpected,
    ) -> None:
        self._socket = connection
        self._max_pdu = max_pdu  # bytes that the peer takes at once, 0 for any
        self._timeout = timeout
        self._on_event = on_event
        self._message_id = 0
        self.contexts = contexts

    @classmethod
    def request(
        cls, peer: Peer, contexts: Sequence[tuple[str, str]], timeout: float, on_event: OnEvent = unexpected
    ) -> Association:
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
        return cls(connection, accepted, max_pdu, timeout, on_event)

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

    def action(self, context: Context, sop_uid: str, action_type: int, information: bytes) -> int:
        """N-ACTION on the SOP instance `sop_uid`, its information encoded as the context's; raises as `store`."""
        command = N_ACTION()
        command.RequestedSOPClassUID = UID(context.sop_class)
        command.RequestedSOPInstanceUID = UID(sop_uid)
        command.ActionTypeID = action_type
        command.ActionInformation = BytesIO(information)
        return self._exchange(N_ACTION_RQ(), command, context.id)

    def attend(self) -> bool:
        """Hear the events that the peer reported since the last exchange; False when it ended the association."""
        deadline = time.monotonic() + self._timeout
        try:
            while select.select([self._socket], [], [], 0)[0]:
                context_id, said = self._message(deadline)
                self._hear(context_id, said)
        except (OSError, AssociationBroken, ValueError):  # ValueError: closed here
            return False
        return True

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
        pdus = self._encoded(message, context_id)
        deadline = time.monotonic() + self._timeout
        self._socket.settimeout(self._timeout)
        self._socket.sendall(pdus)  # in one piece: a second write would wait for the peer's delayed acknowledgement
        while True:
            said_on, said = self._message(deadline)
            if said.MessageIDBeingRespondedTo is None:
                self._hear(said_on, said)
            elif said.MessageIDBeingRespondedTo != self._message_id:
                raise AssociationBroken("answered another message than it was sent")
            else:
                with _decoding():
                    return int(said.Status)

    def _message(self, deadline: float) -> tuple[int, Any]:
        """The next DIMSE message whole, and the id of its context."""
        message, size = DIMSEMessage(), 0
        while True:
            kind, pdu = _read(self._socket, deadline)
            if kind == _RELEASE:
                self._socket.sendall(A_RELEASE_RP().encode())
            if kind != _DATA:
                raise AssociationBroken(_BREAKS.get(kind, "sent a PDU that has no place here"))
            size += len(pdu)
            if size > _MAX_MESSAGE:
                raise AssociationBroken("sent a message longer than any that was asked for")
            with _decoding():
                data = P_DATA_TF()
                data.decode(pdu)
                if message.decode_msg(data.to_primitive()):
                    return message.context_id, message.message_to_primitive()

    def _hear(self, context_id: int, said: Any) -> None:
        """A request of the peer's, of which there is one kind (PS3.7 10.1.1)."""
        context = next((context for context in self.contexts if context.id == context_id), None)
        if not isinstance(said, N_EVENT_REPORT) or said.MessageID is None or context is None:
            raise AssociationBroken("asked for what was not negotiated")
        with _decoding():
            syntax = UID(context.transfer_syntax)
            information = decode(said.EventInformation or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian)
        answer = N_EVENT_REPORT()
        answer.MessageIDBeingRespondedTo = said.MessageID
        answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = (
            said.AffectedSOPClassUID,
            said.AffectedSOPInstanceUID,
        )
        answer.EventTypeID = said.EventTypeID
        answer.Status = self._on_event(information)
        message = N_EVENT_REPORT_RSP()
        message.primitive_to_message(answer)
        self._socket.settimeout(self._timeout)
        self._socket.sendall(self._encoded(message, context_id))

    def _encoded(self, message: DIMSEMessage, context_id: int) -> bytes:
        return b"".join(P_DATA_TF(data).encode() for data in message.encode_msg(context_id, self._max_pdu))


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
    length.maximum_length_received = MAX_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
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
    if length > 64 * MAX_PDU:
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
