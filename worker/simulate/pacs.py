"""A small PACS that takes whatever it is sent: what `make run` and the tests report to.

    python -m worker.simulate.pacs --port 11113 --folder var/pacs --ae-title PACS

Every storage SOP class in every transfer syntax, stored as `folder/study/series/instance.dcm`; the same SOP Instance
UID again replaces the file. It can be given bad habits, so that a sender may be seen to cope with them.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import threading
from io import BytesIO
from pathlib import Path
from uuid import uuid4

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification

from schemas.identity import is_uid

log = logging.getLogger("hilum.simulate")

_SUCCESS = 0x0000
_NO_SPACE = 0xA700
_CANNOT_UNDERSTAND = 0xC000


class Pacs:
    """A storage and verification SCP (PS3.4 B, A).

    Attributes
    ----------
    answer:
        The status that every C-STORE is answered with; what is not a success is not stored.
    stall:
        Seconds that go by before it answers.
    drop:
        Abort the association in place of an answer.
    """

    def __init__(self, folder: Path, *, ae_title: str = "PACS", host: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.answer = _SUCCESS
        self.stall = 0.0
        self.drop = False
        self._port = port
        self._lock = threading.Lock()
        self._stored = {path.stem: path for path in sorted(folder.glob("*/*/*.dcm"), key=lambda p: p.stat().st_mtime)}
        self._stopping = threading.Event()
        self._ae = AE(ae_title)
        self._ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
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
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_CONN_OPEN, self._on_open)]
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
