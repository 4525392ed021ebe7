"""The spool in a folder of this machine.

    root/incoming/          films on their way in; nobody but their writer looks here
    root/films/<2 hex>/     films at rest: <SOP Instance UID>-<SHA-256 of the data set>.dcm

The name follows from the content: the same bytes come to the same name, another version to another one, and so
nothing that a row points to is ever overwritten with something else.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from schemas.errors import SpoolError, SpoolFull, Unreadable
from schemas.identity import InstanceRef, is_uid
from worker.ports import SpooledFile

# How many bytes a film may grow before free space is looked at again: an endless C-STORE must not pass the watermark.
_LOOK_EVERY: Final = 64 << 20
_SHARDS: Final = tuple(f"{n:02x}" for n in range(256))


@contextmanager
def _disk() -> Iterator[None]:
    """Whatever the disk refuses (ENOSPC, EDQUOT, EIO, …) is told to the sender as "out of resources"."""
    try:
        yield
    except OSError as error:
        raise SpoolFull(f"the spool's disk refused: {error.strerror}") from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalIncoming:
    """One film on its way in. Belongs to one thread at a time."""

    def __init__(self, spool: LocalSpool, preamble: bytes) -> None:
        self._spool = spool
        self._digest = hashlib.sha256()
        self._size = 0
        self._look_at = _LOOK_EVERY
        with _disk():
            self._descriptor, name = tempfile.mkstemp(dir=spool.incoming, suffix=".part")
        self._temporary: Path | None = Path(name)
        self._append(preamble)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append bytes of the encoded data set. Raises `SpoolFull`; then nothing is left of the film."""
        self._digest.update(chunk)
        self._append(chunk)
        if self._size >= self._look_at:
            self._look_at += _LOOK_EVERY
            try:
                self._spool.check_watermark()
            except SpoolFull:
                self.discard()
                raise

    def commit(self, instance: InstanceRef) -> SpooledFile:
        """Fsync the bytes, give them their lasting name, fsync the name. Raises `SpoolFull`, `Unreadable`."""
        if self._temporary is None:
            raise SpoolError("commit after discard or commit")
        digest = self._digest.hexdigest()
        film = self._spool.films / digest[:2] / f"{instance.sop_uid}-{digest}.dcm"
        try:
            if not is_uid(instance.sop_uid, lenient=True):
                raise Unreadable("SOP Instance UID is not fit to be a file name")
            with _disk():
                os.fdatasync(self._descriptor)
                # Over a film of the same name, too: it has the same bytes, or has lost them since.
                self._temporary.replace(film)
                self._temporary = None
                _fsync_folder(film.parent)
        finally:
            self.discard()
        return SpooledFile(path=film.relative_to(self._spool.root).as_posix(), size=self._size, sha256=digest)

    def discard(self) -> None:
        """Forget the bytes; after `commit`, or a second time, a no-op."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _append(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._descriptor < 0:
            raise SpoolError("write after discard or commit")
        rest = memoryview(chunk)
        try:
            with _disk():
                while rest:
                    written = os.write(self._descriptor, rest)
                    self._size += written
                    rest = rest[written:]
        except SpoolFull:
            self.discard()
            raise


class LocalSpool:
    """`worker.ports.Spool` in a folder. Thread-safe; several processes may share the folder.

    Parameters
    ----------
    root:
        The folder; made when missing. Patient data: readable by its owner alone.
    watermark_bytes:
        Films are refused while less than this is free.
    grace:
        `sweep` leaves younger files alone: they may belong to a film that is being received right now.
    """

    def __init__(self, root: Path, *, watermark_bytes: int = 0, grace: timedelta = timedelta(hours=1)) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.films = root / "films"
        self._watermark_bytes = watermark_bytes
        self._grace = grace
        try:
            for folder in (root, self.incoming, self.films, *(self.films / shard for shard in _SHARDS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.films, root, root.parent):
                _fsync_folder(folder)
        except OSError as error:
            raise SpoolError(f"{root}: cannot be a spool: {error.strerror}") from error

    def begin(self, preamble: bytes) -> LocalIncoming:
        """Start a film. Raises `SpoolFull` below the watermark."""
        self.check_watermark()
        return LocalIncoming(self, preamble)

    def check_watermark(self) -> None:
        """Raises `SpoolFull` below the watermark."""
        free = self.free_bytes()
        if free < self._watermark_bytes:
            raise SpoolFull(f"{free >> 20} MiB free, the watermark is {self._watermark_bytes >> 20} MiB")

    def path_of(self, file: str) -> Path:
        """The readable path of `SpooledFile.path`. Raises `SpoolError` when it is missing, or outside of the spool."""
        path = self._inside(file)
        if not path.is_file():
            raise SpoolError(f"{file}: missing from the spool")
        return path

    def remove(self, file: str) -> None:
        """Delete; a missing file is no error."""
        self._inside(file).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """What an ordinary user may still write, in bytes."""
        with _disk():
            disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize

    def sweep(self, known: set[str]) -> int:
        """Remove what a crash left behind: unfinished films, and finished ones whose row was never committed.

        Nothing younger than `grace` is touched: a film may have been committed after `known` was read.
        """
        before = time.time() - self._grace.total_seconds()
        swept = 0
        for path in (*self.incoming.iterdir(), *self.films.glob("*/*")):
            with suppress(FileNotFoundError):  # committed or removed meanwhile
                if path.relative_to(self.root).as_posix() not in known and path.stat().st_mtime < before:
                    path.unlink()
                    swept += 1
        return swept

    def _inside(self, file: str) -> Path:
        path = self.films.parent / file
        if ".." in path.parts or path.parent.parent != self.films:
            raise SpoolError(f"{file!r}: not a name of this spool")
        return path
