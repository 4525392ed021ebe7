"""One C-STORE, from its first fragment to its status (PS3.4 B.2, PS3.7 9.1.1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Final, TypeAlias

from schemas.decision import Urgency
from schemas.errors import HilumError, Unreadable, status_of
from schemas.identity import Sender, is_uid
from worker.ports import Incoming, Spool
from worker.receive.head import Head, HeadReader

log = logging.getLogger("hilum.receive")

SUCCESS: Final = 0x0000
IMPLEMENTATION_CLASS_UID: Final = "2.25.227846189351036283710546127098214365007"
IMPLEMENTATION_VERSION_NAME: Final = "HILUM"

Intake: TypeAlias = Callable[[Head, Sender, Incoming, Urgency], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """Status of the C-STORE-RSP, and its Error Comment: at most 64 characters, never patient data."""

    status: int
    comment: str = ""


class Arrival:
    """A data set on its way into the spool.

    `write` never raises: a film that cannot be stored is still read to its end, so that the sender gets a status
    instead of a broken association, and the next film of the association is not lost with it.
    """

    def __init__(
        self,
        spool: Spool,
        intake: Intake,
        *,
        sop_class: str,
        sop_uid: str,
        transfer_syntax: str,
        sender: Sender,
        order_urgency: Urgency,
    ) -> None:
        self._intake = intake
        self._names = {"sop_class": sop_class, "sop_uid": sop_uid}
        self._sender = sender
        self._order_urgency = order_urgency
        self._reader = HeadReader(transfer_syntax)
        self._incoming: Incoming | None = None
        self._error: Exception | None = None
        self._size = 0
        self._began = time.monotonic()
        try:
            if not (is_uid(sop_class, lenient=True) and is_uid(sop_uid, lenient=True)):
                raise Unreadable("command set without a usable SOP Class or Instance UID")
            self._incoming = spool.begin(
                file_preamble(
                    sop_class=sop_class, sop_uid=sop_uid, transfer_syntax=transfer_syntax, calling_ae=sender.calling_ae
                )
            )
        except Exception as error:  # noqa: BLE001 - told to the sender by `settle`
            self._fail(error)

    def write(self, chunk: memoryview) -> None:
        """The next bytes of the encoded data set; `chunk` is not kept."""
        self._size += len(chunk)
        if self._incoming is None:
            return
        try:
            self._reader.feed(chunk)
            self._incoming.write(chunk)
        except Exception as error:  # noqa: BLE001 - told to the sender by `settle`
            self._fail(error)

    def settle(self) -> Reply:
        """Hand the complete film over; Success only after `intake` has returned."""
        try:
            if self._error is not None:
                raise self._error
            assert self._incoming is not None  # noqa: S101 - either there is a file or an error
            head = self._reader.head(**self._names)
            self._intake(head, self._sender, self._incoming, self._order_urgency)
            reply = Reply(SUCCESS)
        except HilumError as error:
            reply = Reply(status_of(error), str(error)[:64])
        except Exception as error:  # a bug of ours: never Success, and the association lives on
            log.exception("store-failed")
            reply = Reply(status_of(error))
        finally:
            self.discard()
        seconds = time.monotonic() - self._began
        level = logging.INFO if reply.status == SUCCESS else logging.WARNING
        log.log(level, "store status=%04X bytes=%d seconds=%.3f", reply.status, self._size, seconds)
        return reply

    def discard(self) -> None:
        """Forget what has not been committed."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.discard()


def file_preamble(*, sop_class: str, sop_uid: str, transfer_syntax: str, calling_ae: str) -> bytes:
    """Preamble, prefix and File Meta Information of a received film (PS3.10 7.1); the data set follows as it came."""
    meta = b"".join(
        (
            pack("<HH2sxxI2s", 0x0002, 0x0001, b"OB", 2, b"\0\1"),
            _meta(0x0002, b"UI", sop_class),
            _meta(0x0003, b"UI", sop_uid),
            _meta(0x0010, b"UI", transfer_syntax),
            _meta(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _meta(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _meta(0x0016, b"AE", calling_ae) if calling_ae else b"",
        )
    )
    return bytes(128) + b"DICM" + pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta


def _meta(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return pack("<HH2sH", 0x0002, element, vr, len(raw)) + raw
