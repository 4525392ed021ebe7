"""pynetdicom's upper layer, with a fast road for the bytes of a C-STORE.

Negotiation, ACSE, the state machine, DIMSE messages and services stay pynetdicom's. What is replaced:

- The reactors of association and DUL sleep 1 ms between looks; here they wait for the socket, or for each other.
- A P-DATA-TF is copied five times on its way to a handler; here a fragment of a C-STORE goes from the receive buffer
  to its `Arrival` as it comes, whatever the size of the PDU, and is never put together.
- The supported contexts (170 classes x 20 syntaxes) are copied for each association; here none are.
- A C-FIND response is copied and queued as often as a film is; here the responses to a `Window` are framed by
  `worker.receive.find` and go out as they are.
- A port probe holds its threads until the ACSE timeout, its socket until garbage collection, and a place among the
  associations (pynetdicom #669); here it is gone at once.

The only module that touches what pynetdicom does not promise: `tests/unit/receive/test_pynetdicom_internals.py` says
what that is and fails first when it changes.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, Final, TypeVar

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_FIND_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ABORT, P_DATA
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from schemas.identity import Sender
from worker.ports import QueryFailure, Window
from worker.receive.access import LocalAE, titles_of
from worker.receive.find import CANCELLED, SUCCESS, UNABLE_TO_PROCESS, batches, response
from worker.receive.store import Arrival, Reply

log = logging.getLogger("hilum.receive")

NO_DATA_SET: Final = Reply(0xC000, "C-STORE without a data set")

_BUFFER: Final = 256 << 10  # bytes; holds the largest PDU that is not P-DATA-TF
_LARGEST_PDU: Final = 64 << 20  # a P-DATA-TF is streamed, so its size costs nothing; this is not a length but a mistake
_LARGEST_MESSAGE: Final = 1 << 20  # bytes of command set, and of a data set that is not a C-STORE's
_CACHED_REQUEST: Final = 32 << 10  # bytes of an A-ASSOCIATE-RQ; hostile ones are larger, and fewer of them fit
_WAITING_MESSAGES: Final = 2  # before a peer that does not wait for its answers is no longer listened to
_A_ASSOCIATE_RQ: Final = 0x01
_P_DATA_TF: Final = 0x04
_PDU_KINDS: Final = range(0x01, 0x08)
_PDU_HEADER: Final = struct.Struct(">BxI")  # PS3.8 9.3.1
_PDV_HEADER: Final = struct.Struct(">IBB")  # PS3.8 9.3.5.1, E.2
_COMMAND: Final = 0x01
_LAST: Final = 0x02

_IMPLICIT_VR: Final = "1.2.840.10008.1.2"

_Item = TypeVar("_Item")


class _Invalid(Exception):
    """The peer does not speak PS3.8: Evt19."""


class _BrokenOff(Exception):
    """The stream ends here: the connection was closed, or we abort."""


class _AssociateRQ(A_ASSOCIATE_RQ):  # type: ignore[misc]
    """Becomes a primitive once."""

    @cached_property
    def _primitive(self) -> Any:
        return super().to_primitive()

    def to_primitive(self) -> Any:
        return self._primitive


@lru_cache(maxsize=16)
def _decode_request(pdu: bytes) -> _AssociateRQ:
    """A sender proposes the same 128 contexts for each film, and to understand them takes 10 ms each time."""
    request = _AssociateRQ()
    request.decode(pdu)
    return request


class _Announcing(queue.Queue[_Item]):
    """A queue that says so when something was put in it."""

    def __init__(self, news: threading.Event) -> None:
        super().__init__()
        self._news = news

    def put(self, item: _Item, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._news.set()


class _Encoded:
    """PDUs on their way to the peer."""

    def __init__(self, pdus: bytes) -> None:
        self.pdus = pdus
        self.sent = False
        self.settled = threading.Event()  # sent, or never to be


class StoreSocket(AssociationSocket):  # type: ignore[misc]
    """Closes what it shuts down; pynetdicom leaves a socket open whose peer was quicker."""

    def _shutdown_socket(self) -> None:
        if self.socket is None:
            return
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class StoreDUL(DULServiceProvider):  # type: ignore[misc]
    """Upper layer of one association: reads the socket, runs the state machine (PS3.8 9.2)."""

    def __init__(self, assoc: StoreAssociation, news: threading.Event) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.to_user_queue: queue.Queue[Any] = _Announcing(news)
        self.ended = False
        self.titles = ("", "")  # called, calling
        self._wake_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._buffer = memoryview(b"")
        self._begin = self._end = 0  # what of the buffer has been received and not yet understood
        self._short = True  # and is not understood before there is more of it
        self._pdu_left = 0  # bytes of the P-DATA-TF after the PDV in hand
        self._pdv_left = 0
        self._pdv_context = self._pdv_control = 0
        self._pieces = bytearray()  # the PDV in hand, where it is not streamed
        self._held = 0  # bytes of the message in hand, where it is not streamed
        self._request: C_STORE | None = None  # the C-STORE whose data set is being streamed

    # what other threads call

    def wake(self) -> None:
        """Look again: there is something to send, or to stop for."""
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def hang_up(self) -> None:
        """Shut the connection down; the reactor sees it closed (Evt17) and ends in whatever state it is."""
        connection = self.socket.socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.wake()

    def close(self) -> None:
        """Let go of the descriptors; for the reactor's end, or where it never began."""
        self.socket._shutdown_socket()
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
                self._wake_fd = -1

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    # the reactor

    def run_reactor(self) -> None:
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                try:
                    event = self.event_queue.get(block=False)
                except queue.Empty:
                    if not self._next_event():
                        self._wait()
                else:
                    self.state_machine.do_action(event)
        except Exception:  # an event that the state machine does not know in its state: nothing to be saved
            log.exception("association-broken")
        finally:
            self.close()
            if self._request is not None:
                self._request.arrival.discard()
            self._buffer = memoryview(b"")
            self.ended = True
            self.to_user_queue.put(None)  # lets go whoever still waits for an A-ASSOCIATE-RQ

    def _next_event(self) -> bool:
        """Whether there was something to do: a timer, a primitive to send, bytes to understand."""
        state = self.state_machine.current_state
        if state in ("Sta2", "Sta13") and self.artim_timer.expired:
            self.event_queue.put("Evt18")
            return True
        if state == "Sta13":  # all is said; whatever else comes, or waits to be sent, is of no use
            self.socket.close()
            return True
        return bool(self._process_recv_primitive()) or self._receive()

    def _process_recv_primitive(self) -> bool:
        waiting = self.to_provider_queue.queue
        if waiting and isinstance(waiting[0], _Encoded):
            self._send_encoded(self.to_provider_queue.get(False))
            return True
        return bool(super()._process_recv_primitive())

    def _send_encoded(self, encoded: _Encoded) -> None:
        if self.state_machine.current_state in ("Sta6", "Sta8"):  # as P-DATA of the user's, PS3.8 table 9-10
            self.socket.send(encoded.pdus)
            encoded.sent = True
        encoded.settled.set()
        self._receive()  # a C-CANCEL, before there is more to send

    def _wait(self) -> None:
        """Until the socket or another thread has something, or a timer may have expired."""
        seconds = 60.0
        waiting = select.poll()
        waiting.register(self._wake_fd, select.POLLIN)
        if self._listening():
            waiting.register(self.socket.socket, select.POLLIN)
        else:
            seconds = 0.05
        if self.state_machine.current_state == "Sta2":
            seconds = max(0.01, self.artim_timer.remaining)
        for descriptor, _ in waiting.poll(1000 * seconds):
            if descriptor == self._wake_fd:
                os.eventfd_read(self._wake_fd)

    def _listening(self) -> bool:
        return bool(self.assoc.dimse.msg_queue.qsize() < _WAITING_MESSAGES)

    def _receive(self) -> bool:
        if not self._listening():
            return False
        if self._short:
            if not self._buffer:
                self._buffer = memoryview(bytearray(_BUFFER))
            try:
                size = self.socket.socket.recv_into(self._buffer[self._end :], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                size = 0
            if size == 0:
                self.event_queue.put("Evt17")
                return True
            self._idle_timer.restart()
            self._end += size
        try:
            self._short = self._understand()
            if self._pdv_left and self._request is not None:
                self._stream(self._request)
        except _BrokenOff:
            pass
        except Exception as error:  # noqa: BLE001 - pynetdicom's decoders raise anything on hostile bytes
            log.warning("protocol-error kind=%s", type(error).__name__)
            self.event_queue.put("Evt19")
        return True

    def _understand(self) -> bool:
        """Take what is in the buffer until it is empty, or one PDU has become an event; True when it needs more."""
        while self._begin < self._end and self.event_queue.empty():
            have = self._end - self._begin
            if self._pdv_left:
                size = min(have, self._pdv_left)
                self._pdv_left -= size
                self._fragment(self._buffer[self._begin : self._begin + size])
                self._begin += size
            elif have < _PDU_HEADER.size:  # the PDV header is as long
                break
            elif self._pdu_left:
                self._begin_pdv()
            elif not self._begin_pdu(have):
                break
        left = self._end - self._begin
        self._buffer[:left] = bytes(self._buffer[self._begin : self._end])
        self._begin, self._end = 0, left
        return bool(self.event_queue.empty())

    def _stream(self, request: C_STORE) -> None:
        """The rest of a data set, in as few system calls as it has PDUs and the buffer's size allows.

        The state machine has no part in it: P-DATA-TF in Sta6 leaves it where it is (PS3.8 table 9-10). What is not
        P-DATA-TF, an A-ABORT say, is left to `_understand`.
        """
        filled = 0
        rest = b""
        while not rest:
            while self._pdv_left:
                size = min(self._pdv_left, _BUFFER)
                if filled + size > _BUFFER:
                    request.arrival.write(self._buffer[:filled])
                    filled = 0
                self._read(self._buffer[filled : filled + size])
                self._pdv_left -= size
                filled += size
            if self._pdv_control & _LAST:
                break
            rest = self._next_pdv()
        request.arrival.write(self._buffer[:filled])
        if rest:
            self._end, self._short = len(rest), False
            self._buffer[: self._end] = rest
        else:
            self._fragment(self._buffer[:0])

    def _next_pdv(self) -> bytes:
        """Go on to the next fragment; where something else comes, what was read of it."""
        headers = memoryview(bytearray(_PDU_HEADER.size + _PDV_HEADER.size))
        have = _PDU_HEADER.size if self._pdu_left else 0
        while have < len(headers):
            # Not MSG_WAITALL: an A-ABORT is shorter than both headers.
            have += self._read_some(headers[have:], 0)
            if have >= _PDU_HEADER.size and not self._pdu_left:
                kind, length = _PDU_HEADER.unpack_from(headers)
                if kind != _P_DATA_TF:
                    return bytes(headers[:have])
                self._pdata_header(length)
        self._pdv_header(headers[_PDU_HEADER.size :])
        return b""

    def _read(self, into: memoryview) -> None:
        """Fill `into`. Raises `_BrokenOff`."""
        while into:
            into = into[self._read_some(into, socket.MSG_WAITALL) :]

    def _read_some(self, into: memoryview, flags: int) -> int:
        """How many bytes were read; at least one. Raises `_BrokenOff`."""
        while True:
            try:
                size = int(self.socket.socket.recv_into(into, 0, flags))
            except BlockingIOError:  # SO_RCVTIMEO: a look at whether we were told to stop
                with suppress(IndexError):
                    if isinstance(self.to_provider_queue.queue[0], A_ABORT):
                        raise _BrokenOff from None
                continue
            except OSError:
                size = 0
            if size == 0:
                self.event_queue.put("Evt17")
                raise _BrokenOff
            self._idle_timer.restart()
            return size

    def _begin_pdu(self, have: int) -> bool:
        """The header of a P-DATA-TF, or the whole of another PDU; False when there is not enough of it yet."""
        kind, length = _PDU_HEADER.unpack_from(self._buffer, self._begin)
        body = self._begin + _PDU_HEADER.size
        if kind == _P_DATA_TF:
            if self.state_machine.current_state not in ("Sta6", "Sta7"):
                self.event_queue.put("Evt10")
            self._pdata_header(length)
            self._begin = body
            return True
        if kind not in _PDU_KINDS or length > _BUFFER - _PDU_HEADER.size:
            raise _Invalid
        if have < _PDU_HEADER.size + length:
            return False
        self._control(bytearray(self._buffer[self._begin : body + length]))
        self._begin = body + length
        return True

    def _begin_pdv(self) -> None:
        self._pdv_header(self._buffer[self._begin : self._begin + _PDV_HEADER.size])
        self._begin += _PDV_HEADER.size
        if not self._pdv_left:
            self._fragment(self._buffer[:0])

    def _pdata_header(self, length: int) -> None:
        if not _PDV_HEADER.size <= length <= _LARGEST_PDU:
            raise _Invalid
        self._pdu_left = length

    def _pdv_header(self, header: memoryview) -> None:
        length, self._pdv_context, self._pdv_control = _PDV_HEADER.unpack(header)
        self._pdu_left -= 4 + length
        self._pdv_left = length - 2
        if self._pdv_left < 0 or self._pdu_left < 0 or 0 < self._pdu_left < _PDV_HEADER.size:
            raise _Invalid
        # Command set before data set, one message at a time (PS3.7 6.3.1, PS3.8 E.1).
        message = self.assoc.dimse.message
        in_command = self._request is None and (message is None or type(message) is DIMSEMessage)
        same_context = self._request is None or self._request._context_id == self._pdv_context
        if bool(self._pdv_control & _COMMAND) is not in_command or not same_context:
            raise _Invalid

    def _control(self, pdu: bytearray) -> None:
        if pdu[0] == _A_ASSOCIATE_RQ:
            self.titles = titles_of(pdu)
            # pynetdicom breaks off on titles that are blank or not ASCII (#646, #921): give it some that are.
            for at, title in zip((10, 26), self.titles, strict=True):
                pdu[at : at + 16] = (title or "?").ljust(16).encode("ascii")
            decode = _decode_request if len(pdu) <= _CACHED_REQUEST else _decode_request.__wrapped__
            decoded, event = decode(bytes(pdu)), "Evt6"
        else:
            decoded, event = self._decode_pdu(pdu)
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)

    def _fragment(self, chunk: memoryview) -> None:
        """Part of the PDV in hand; its end when nothing is left of it."""
        last = not self._pdv_left and bool(self._pdv_control & _LAST)
        if self._request is not None:
            self._request.arrival.write(chunk)
            if last:
                self.assoc.dimse.msg_queue.put((self._request._context_id, self._request))
                self._request = None
            return
        self._held += len(chunk)
        if self._held > _LARGEST_MESSAGE:
            raise _Invalid
        self._pieces += chunk
        if not self._pdv_left:
            value = bytes((self._pdv_control,)) + self._pieces
            self._pieces.clear()
            self._to_dimse(value)

    def _to_dimse(self, value: bytes) -> None:
        dimse = self.assoc.dimse
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((self._pdv_context, value))
        unfinished = dimse.message
        dimse.receive_primitive(primitive)
        message = dimse.message
        if message is None:
            self._held = 0
            if isinstance(unfinished, C_FIND_RQ):
                dimse.cancel_req.clear()  # what was cancelled before is another query
        elif isinstance(message, C_STORE_RQ):  # its command set is complete and its data set follows
            dimse.message = None
            self._held = 0
            request = message.message_to_primitive()
            request.arrival = self.assoc.open_arrival(request)
            self._request = request


class StoreAssociation(Association):  # type: ignore[misc]
    """An association of ours as acceptor. `local_ae` and `sender` are set once it has been admitted."""

    def __init__(self, server: StoreServer) -> None:
        super().__init__(server.ae, "acceptor")
        self._server = server
        self._news = threading.Event()
        self.dul = StoreDUL(self, self._news)
        self.dimse.msg_queue = _Announcing(self._news)
        self.acse_timeout = self.ae.acse_timeout  # once more: the setters tell the DUL's timers
        self.network_timeout = self.ae.network_timeout
        self.sender = Sender(calling_ae="", called_ae="", address="")
        self.local_ae: LocalAE | None = None
        self.afterwards: list[Callable[[], object]] = []  # to be done once the request in hand has been answered

    def _bind_defaults(self) -> None:
        """Without the handlers that write each PDU to the log."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def open_arrival(self, request: C_STORE) -> Arrival:
        """For the data set that follows `request`. Raises `KeyError` when its presentation context was not accepted."""
        return self._server.open_arrival(self, request, self._accepted_cx[request._context_id].transfer_syntax[0])

    def kill(self) -> None:
        self._news.set()
        super().kill()

    def give_up(self) -> None:
        """A-ABORT from another thread, without waiting for the end."""
        if self.is_established:
            self.abort(block=False)
        else:
            self.dul.hang_up()

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception:  # of the negotiation, on hostile bytes
            log.exception("association-broken")
        finally:
            self.dul.hang_up()
            if self.dul.is_alive():
                self.dul.join()
            self.dul.close()
            while True:
                _, message = self.dimse.get_msg()
                if message is None:
                    break
                if getattr(message, "arrival", None) is not None:
                    message.arrival.discard()
            self._server.forget(self)

    def _run_reactor(self) -> None:
        """As pynetdicom's, but it waits for news where that one sleeps."""
        while not self._kill:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            self._news.clear()
            context_id, message = self.dimse.get_msg()
            if message is not None:
                self._serve_request(message, context_id)
                while self.afterwards:
                    self.afterwards.pop(0)()
                self.dul.wake()
                self.dul._idle_timer.restart()  # the time was ours, not the peer's
                self._news.set()
            elif self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                evt.trigger(self, evt.EVT_RELEASED, {})
                self.kill()
            elif self.acse.is_aborted():
                self.is_aborted, self.is_established = True, False
                self.dul.receive_pdu()
                evt.trigger(self, evt.EVT_ABORTED, {})
                self.kill()
            elif self.dul.ended:
                self.kill()
            elif self.dul.idle_timer_expired():
                log.warning("association-idle")
                self.abort()
            else:
                self._news.wait(max(0.01, self.dul._idle_timer.remaining))

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, C_FIND) and msg.MessageID is not None and context_id in self._accepted_cx:
            window = self._server.windows.get(str(self._accepted_cx[context_id].abstract_syntax))
            if window is not None:
                self._find(msg, context_id, window)
                return
        if not isinstance(msg, C_STORE) or msg.MessageID is None:
            super()._serve_request(msg, context_id)
            return
        arrival = getattr(msg, "arrival", None)
        reply = NO_DATA_SET if arrival is None else arrival.settle()
        stored = C_STORE()
        stored.MessageIDBeingRespondedTo = msg.MessageID
        stored.AffectedSOPClassUID = msg.AffectedSOPClassUID
        stored.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
        stored.Status = reply.status
        if reply.comment:
            stored.ErrorComment = reply.comment
        if self.is_established:
            self.dimse.send_msg(stored, context_id)

    def _find(self, request: C_FIND, context_id: int, window: Window) -> None:
        status, comment, found = SUCCESS, "", 0
        began = time.monotonic()
        try:
            identifier = b"" if request.Identifier is None else request.Identifier.getvalue()
            implicit_vr = self._accepted_cx[context_id].transfer_syntax[0] == _IMPLICIT_VR
            answer = window.find(identifier, implicit_vr=implicit_vr)
            if isinstance(answer, QueryFailure):
                status, comment = answer.status, answer.comment[:64]
            else:
                for batch in batches(request, context_id, answer, self.dimse.maximum_pdu_size):
                    if request.MessageID in self.dimse.cancel_req:
                        status = CANCELLED
                        break
                    if not self._send(batch):
                        return
                    found += len(batch)
        except Exception:  # a bug of ours: the association lives on
            log.exception("find-failed")
            status, comment = UNABLE_TO_PROCESS, ""
        log.info("find status=%04X bytes=%d seconds=%.3f", status, found, time.monotonic() - began)
        if self.is_established:
            self.dimse.send_msg(response(request, status, comment), context_id)

    def _send(self, pdus: bytes) -> bool:
        """Hand encoded PDUs over and wait until they are gone; False when the association is at its end."""
        encoded = _Encoded(pdus)
        self.dul.send_pdu(encoded)
        while not encoded.settled.wait(0.25):
            if self.dul.ended:
                return False
        return encoded.sent


class StoreRequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes a `StoreAssociation` of a connection."""

    def handle(self) -> None:
        assoc = self._create_association()
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        try:
            assoc.start()
        except RuntimeError:  # no more threads
            self.server.forget(assoc)
            assoc.dul.close()
            raise

    def _create_association(self) -> StoreAssociation:
        server: StoreServer = self.server
        assoc = StoreAssociation(server)
        assoc.name = f"AcceptorThread@{self.client_address[0]}"  # the prefix is what pynetdicom knows them by
        connection: socket.socket = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that does not read must not hold the reactor for ever.
        seconds = server.ae.network_timeout
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(seconds), 0))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 500_000))
        assoc.set_socket(StoreSocket(assoc, client_socket=connection))
        assoc.acceptor.maximum_length = server.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = server.ae.implementation_version_name
        assoc.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():
            for handler, args in handlers if isinstance(handlers, list) else [handlers]:
                if handler is not None:
                    assoc.bind(event, handler, args)
        server.remember(assoc)
        return assoc


class StoreServer(AssociationServer):  # type: ignore[misc]
    """The open port.

    Parameters
    ----------
    ae, address, ae_title, contexts, ssl_context, evt_handlers:
        As `pynetdicom.ae.ApplicationEntity.make_server` gives them.
    open_arrival:
        Called with association, C-STORE request and transfer syntax when a data set begins.
    windows:
        By SOP class, who answers a C-FIND.
    most_connections:
        Beyond this the connection that has kept silent longest makes room; where none is silent, the new one goes.
    """

    request_queue_size = 128

    def __init__(
        self,
        *args: Any,
        open_arrival: Callable[[StoreAssociation, C_STORE, str], Arrival],
        windows: Mapping[str, Window],
        most_connections: int,
        **kwargs: Any,
    ) -> None:
        self.open_arrival = open_arrival
        self.windows = windows
        self._most_connections = most_connections
        self._associations: dict[StoreAssociation, None] = {}  # in the order in which they came
        self._lock = threading.Lock()
        super().__init__(*args, request_handler=StoreRequestHandler, **kwargs)

    def _bind_defaults(self) -> None:
        """Without the handlers that write each PDU to the log; the associations bring the others."""

    def stop(self) -> None:
        """Close the port; what is connected stays."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def remember(self, assoc: StoreAssociation) -> None:
        """A connection was taken."""
        with self._lock:
            self._associations[assoc] = None

    def forget(self, assoc: StoreAssociation) -> None:
        """Its threads are about to end."""
        with self._lock:
            self._associations.pop(assoc, None)

    @property
    def active_associations(self) -> list[StoreAssociation]:
        """Every connection, admitted or not."""
        with self._lock:
            return list(self._associations)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)  # out of file descriptors: the connection stays in the queue, and so would we
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        present = self.active_associations
        if len(present) < self._most_connections:
            return True
        silent = next((assoc for assoc in present if assoc.local_ae is None), None)
        if silent is None:
            return False
        self.forget(silent)
        silent.dul.hang_up()
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("connection-failed")

    def service_actions(self) -> None:
        """pynetdicom collects garbage here, every half minute, with the whole process standing still."""
