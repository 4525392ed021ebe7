"""A modality: sends files by C-STORE, each as it is, in its own transfer syntax."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

# Files are sent from the disk as they are; pynetdicom would otherwise decode and encode them again.
_config.STORE_SEND_CHUNKED_DATASET = True

_MOST_CONTEXTS = 128  # of one association, PS3.8 9.3.2.2: their ids are the odd numbers of one byte
_Context = tuple[str, str]  # SOP Class UID, Transfer Syntax UID


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one file: the peer's status, or why there is none. Taken when `error` is None."""

    path: Path
    status: int | None = None
    error: str | None = None


def send(
    paths: Sequence[Path],
    ae_title: str,
    host: str,
    port: int,
    calling_ae_title: str = "HILUM-SEND",
    *,
    on_progress: Callable[[Sent], object] = lambda _: None,
    timeout: float = 60.0,
) -> list[Sent]:
    """Send `paths` to a storage SCP; one result for each, in their order.

    No file stops the others: what is not DICOM, what the peer refuses and what an association broke under is named in
    its result. `on_progress` is called with each result as it is known; `timeout` is in seconds and of each step.
    """
    results: dict[int, Sent] = {}

    def settle(index: int, result: Sent) -> None:
        results[index] = result
        on_progress(result)

    readable: list[tuple[int, Path, _Context]] = []
    for index, path in enumerate(paths):
        try:
            readable.append((index, path, _context(path)))
        except _NotSent as error:
            settle(index, Sent(path=path, error=str(error)))
    peer = _Peer(ae_title, host, port, calling_ae_title, timeout)
    for batch in _batches(readable):
        for index, result in peer.send(batch):
            settle(index, result)
    return [results[index] for index in range(len(paths))]


class _NotSent(Exception):
    """A file or a batch that could not be sent; the message is for a person."""


class _Broken(_NotSent):
    """The association is of no more use."""

    def __init__(self, association: Association, words: str) -> None:
        super().__init__(words)
        self.association = association


@dataclass(frozen=True)
class _Peer:
    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout: float

    def send(self, batch: Sequence[tuple[int, Path, _Context]]) -> Iterator[tuple[int, Sent]]:
        """One association for the batch, and a new one after each that broke."""
        contexts = list(dict.fromkeys(context for _, _, context in batch))
        association: Association | None = None
        try:
            for index, path, context in batch:
                try:
                    if association is None or not association.is_established:
                        association = self._associate(contexts)
                    yield index, self._store(association, path, context)
                except _Broken as error:
                    # pynetdicom may call it established for a while yet, and would wait for answers that never come.
                    error.association.abort()
                    association = None
                    yield index, Sent(path=path, error=str(error))
                except _NotSent as error:
                    yield index, Sent(path=path, error=str(error))
        finally:
            if association is not None:
                association.release()

    def _associate(self, contexts: Iterable[_Context]) -> Association:
        ae = AE(self.calling_ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = self.timeout
        peer = f"{self.ae_title}@{self.host}:{self.port}"
        try:
            association = ae.associate(
                self.host,
                self.port,
                contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
                ae_title=self.ae_title,
                max_pdu=128 * 1024,
                evt_handlers=[(evt.EVT_CONN_OPEN, _no_delay)],
            )
        except OSError as error:
            raise _NotSent(f"{peer}: {error}") from error
        if association.is_established:
            return association
        if association.is_rejected:
            raise _NotSent(f"{peer} rejected the association: {association.acceptor.primitive.reason_str}")
        if not association.accepted_contexts and association.acceptor.primitive is not None:
            raise _NotSent(f"{peer} accepts none of the SOP classes and transfer syntaxes of these files")
        raise _NotSent(f"{peer}: no association; is it there, and is the port right?")

    def _store(self, association: Association, path: Path, context: _Context) -> Sent:
        sop_class, syntax = context
        accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        if context not in accepted:
            raise _NotSent(f"{self.ae_title} does not accept {UID(sop_class).name} in {UID(syntax).name}")
        try:
            answer = association.send_c_store(path)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            raise _NotSent(f"could not be sent: {error}") from error
        status = answer.get("Status")
        if status is None:
            raise _Broken(association, f"{self.ae_title} did not answer: the association broke or timed out")
        if status == 0x0000 or status >> 12 == 0xB:  # success, or stored with a warning (PS3.4 B.2.3)
            return Sent(path=path, status=status)
        comment = f": {answer.ErrorComment}" if answer.get("ErrorComment") else ""
        return Sent(path=path, status=status, error=f"refused with status 0x{status:04X}{comment}")


def _context(path: Path) -> _Context:
    """What the File Meta Information (PS3.10 7.1) says that the file is."""
    try:
        meta = read_file_meta_info(path)
        sop_class, sop_uid, syntax = (
            str(meta[keyword].value)
            for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
        )
    except OSError as error:
        raise _NotSent(f"cannot be read: {error.strerror}") from error
    except InvalidDicomError as error:
        raise _NotSent("not a DICOM file (PS3.10): no DICM after the preamble") from error
    except (AttributeError, ValueError, EOFError, KeyError) as error:
        raise _NotSent("not a complete DICOM file: an element of its File Meta Information is missing") from error
    if not (sop_class and sop_uid and syntax):
        raise _NotSent("not a complete DICOM file: an element of its File Meta Information is empty")
    return sop_class, syntax


def _batches(files: Iterable[tuple[int, Path, _Context]]) -> Iterator[list[tuple[int, Path, _Context]]]:
    batch: list[tuple[int, Path, _Context]] = []
    contexts: set[_Context] = set()
    for file in files:
        if len(contexts | {file[2]}) > _MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(file[2])
    if batch:
        yield batch


def _no_delay(event: evt.Event) -> None:
    # The command and the data set go out one after the other; Nagle would hold the second back for 40 ms.
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
