"""A small PACS that takes whatever it is sent: what `make run` and the tests report to.

    python -m worker.simulate.pacs --port 11113 --folder var/pacs --ae-title PACS

Every storage SOP class in every transfer syntax, stored as `folder/study/series/instance.dcm`; the same SOP Instance
UID again replaces the file. Asked for Storage Commitment, it answers by what it holds. It can be given bad habits, so
that a sender may be seen to cope with them.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import threading
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from uuid import uuid4

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, build_role, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.association import Association
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from schemas.identity import is_uid

log = logging.getLogger("hilum.simulate")

_SUCCESS = 0x0000
_NO_SPACE = 0xA700
_CANNOT_UNDERSTAND = 0xC000
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_ALL_KEPT, _NOT_ALL_KEPT = 1, 2  # Event Type IDs, PS3.4 J.3.3
_NO_SUCH_INSTANCE = 0x0112


class Pacs:
    """A storage, verification and Storage Commitment SCP (PS3.4 B, A, J).

    Parameters
    ----------
    sop_classes:
        What it lets itself be sent; every storage class when None.
    commitment:
        Whether it offers Storage Commitment.

    Attributes
    ----------
    answer:
        The status that every C-STORE is answered with; what is not a success is not stored.
    stall:
        Seconds that go by before it answers.
    drop:
        Abort the association in place of an answer.
    commitment_answer:
        The status that a request for Storage Commitment is answered with.
    forgets:
        Hold nothing when asked for commitment, whatever was stored.
    call_back:
        Host and port on which the requestor hears what is kept; on its own association when None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "PACS",
        host: str = "127.0.0.1",
        port: int = 0,
        sop_classes: Collection[str] | None = None,
        commitment: bool = True,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.answer = _SUCCESS
        self.stall = 0.0
        self.drop = False
        self.commitment_answer = _SUCCESS
        self.forgets = False
        self.call_back: tuple[str, int] | None = None
        self._port = port
        self._lock = threading.Lock()
        self._stored = {path.stem: path for path in sorted(folder.glob("*/*/*.dcm"), key=lambda p: p.stat().st_mtime)}
        self._stopping = threading.Event()
        self._ae = AE(ae_title)
        self._ae.add_supported_context(Verification)
        every = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
        for sop_class in every if sop_classes is None else sop_classes:
            self._ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
        if commitment:
            self._ae.add_supported_context(StorageCommitmentPushModel)
        self._ae.maximum_associations = 100
        self._ae.maximum_pdu_size = 128 * 1024

    @property
    def port(self) -> int:
        """The port it listens on; chosen by the system when it was made with port 0."""
        return self._port

    @property
    def stored(self) -> dict[str, Path]:
        """What it holds: SOP Instance UID to file, in the order of first arrival."""
        with self._lock:
            return dict(self._stored)

    def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        handlers = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_commitment),
            (evt.EVT_CONN_OPEN, self._on_open),
        ]
        server = self._ae.start_server((self.host, self._port), block=False, evt_handlers=handlers)
        self._port = server.socket.getsockname()[1]
        log.info("pacs-open ae=%s port=%d", self.ae_title, self._port)

    def stop(self) -> None:
        """Close the port and every association; what is stored stays."""
        self._stopping.set()
        self._ae.shutdown()

    def _on_open(self, event: evt.Event) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_store(self, event: evt.Event) -> int:
        self._stopping.wait(self.stall)
        if self.drop:
            event.assoc.abort()
            return _CANNOT_UNDERSTAND  # never sent
        if self.answer != _SUCCESS:
            return self.answer
        encoded = event.encoded_dataset()
        try:
            identity = dcmread(BytesIO(encoded), specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
            uids = (str(identity.StudyInstanceUID), str(identity.SeriesInstanceUID))
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            return _CANNOT_UNDERSTAND
        sop_uid = str(event.request.AffectedSOPInstanceUID)
        if not all(is_uid(uid, lenient=True) for uid in (*uids, sop_uid)):
            return _CANNOT_UNDERSTAND
        path = self.folder.joinpath(*uids, f"{sop_uid}.dcm")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.parent / f".{uuid4().hex}"
            unfinished.write_bytes(encoded)
            unfinished.replace(path)
        except OSError:
            return _NO_SPACE
        with self._lock:
            self._stored[sop_uid] = path  # keeps its place in the order
        return _SUCCESS

    def _on_commitment(self, event: evt.Event) -> tuple[int, None]:
        if self.commitment_answer == _SUCCESS:
            request, title = event.action_information, str(event.assoc.requestor.ae_title)
            threading.Thread(target=self._commit, args=(event.assoc, request, title), daemon=True).start()
        return self.commitment_answer, None

    def _commit(self, asked_on: Association, request: Dataset, requestor: str) -> None:
        """What is kept of what was asked for, in an N-EVENT-REPORT after the answer to the N-ACTION."""
        stored = set() if self.forgets else set(self.stored)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        kept, failed = [], []
        for reference in request.ReferencedSOPSequence:
            if str(reference.ReferencedSOPInstanceUID) in stored:
                kept.append(reference)
            else:
                reference.FailureReason = _NO_SUCH_INSTANCE
                failed.append(reference)
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        told = (
            report,
            _NOT_ALL_KEPT if failed else _ALL_KEPT,
            StorageCommitmentPushModel,
            _COMMITMENT_INSTANCE,
        )
        if self.call_back is None:
            self._stopping.wait(0.05)  # the answer to the N-ACTION goes first
            if asked_on.is_established:
                asked_on.send_n_event_report(*told)
            return
        host, port = self.call_back
        caller = AE(self.ae_title)
        caller.add_requested_context(StorageCommitmentPushModel)
        as_scp = build_role(StorageCommitmentPushModel, scp_role=True)
        assoc = caller.associate(host, port, ae_title=requestor, ext_neg=[as_scp])
        if assoc.is_established:
            assoc.send_n_event_report(*told)
            assoc.release()
        else:
            log.warning("call-back-refused port=%d", port)


def main() -> None:
    """Run until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m worker.simulate.pacs", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=11113)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--folder", type=Path, default=Path("var/pacs"))
    parser.add_argument("--ae-title", default="PACS")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    pacs = Pacs(options.folder, ae_title=options.ae_title, host=options.host, port=options.port)
    pacs.start()
    stopping.wait()
    pacs.stop()


if __name__ == "__main__":
    main()
