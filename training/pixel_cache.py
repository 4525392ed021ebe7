"""Every film decoded once: a memory-mapped array that training reads at the speed of memory.

Two files of a fixed length, written in place: `<recipe>-<size>-<films>.npy` with the pixels, and `….state.npy` with one
record a film: done or not, size and time of the film's file, checksum of its pixels. Named by the recipe's fingerprint
and by the films, so that another recipe or another set of films is another cache; a folder of films that is moved as a
whole keeps its own.

What a record says is true: it is written after its pixels are on disk. So a build that is killed goes on where it
stopped, and whenever a cache is opened, films whose file has changed (size or time of modification), whose pixels are
not what was written, or that could not be read the last time are decoded again. Opening costs one `stat` a film and one
pass over the file (5.6 GB for all of NIH at 224 px), which training would read anyway.

Pixels are written with `pwrite`, not through the map: on a full disk that is an error, and not the signal SIGBUS.

Threads, for Pillow gives the lock back while it decodes and resizes. On two cores, films/s to 224 px: 1024 px PNG 86
with one thread, 165 with two, 145 with two processes; 256 px WebP 770, 880 to 1,270, 1,600.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.lib.format import dtype_to_descr, open_memmap, write_array_header_1_0
from numpy.typing import NDArray
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from schemas.errors import ConfigurationError, Undecodable
from training.films import square
from training.nih_index import NihFilm
from worker.tensor.recipe import fingerprint

log = logging.getLogger("hilum.training")

_TODO, _DONE, _UNREADABLE = 0, 1, 2
_RECORD: Final = np.dtype([("mark", "u1"), ("size", "<u8"), ("modified", "<i8"), ("crc", "<u4")])
_CHUNK: Final = 256  # films between two marks of progress on disk
_EVERY = 10.0  # seconds between two lines in the log where nobody watches a bar
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

T = TypeVar("T")


class CacheFailed(ConfigurationError):
    """The pixel cache cannot be built; the message names the file and the mend."""


class DiskFull(CacheFailed):
    """There is no room for the pixels. What was decoded stays, and the build goes on from there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelCache:
    """Films in the order they were asked for."""

    path: Path
    pixels: NDArray[np.uint8]  # (N, size, size), read-only map; a film that could not be read is black
    readable: NDArray[np.bool_]  # (N,)
    unreadable: Mapping[str, str]  # name → why; the same, with paths, in `<cache>.unreadable.csv`


class FilmsPerSecond(ProgressColumn):
    """A column of a `rich` progress bar."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} films/s", style="progress.data.speed")


def pixel_cache(films: Sequence[NihFilm], folder: Path, size: int, progress: Progress) -> PixelCache:
    """Build what is missing of the cache in `folder` and map it.

    One process builds at a time; another one waits for it and says so. Progress is shown as a bar, and as lines in the
    log where the bar's console is no terminal.

    Raises
    ------
    DiskFull
        Before anything is written, or in the middle.
    CacheFailed
        A film is gone or may not be read, none is readable, or the folder cannot be written. A film that is no image
        is not fatal: it is black, marked, and named.
    """
    if not films:
        raise CacheFailed(f"{folder}: no films to decode; index them first")
    with _told(folder, "cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    root = os.path.commonpath([film.path.parent for film in films])
    members = "".join(f"{film.name}:{film.path.relative_to(root)}\n" for film in films)
    stem = f"{fingerprint(size)}-{size}-{hashlib.sha256(members.encode()).hexdigest()[:12]}"
    with _alone(folder / f"{stem}.lock"):
        build = _Build(films=films, size=size, path=folder / f"{stem}.npy", progress=progress)
        build.run()
    return PixelCache(
        path=build.path,
        pixels=open_memmap(build.path, mode="r"),
        readable=build.state["mark"] == _DONE,
        unreadable=dict(sorted(build.unreadable.items())),
    )


@dataclass(kw_only=True, slots=True, repr=False)
class _Build:
    """The cache's two files while they are looked through and filled."""

    films: Sequence[NihFilm]
    size: int
    path: Path
    progress: Progress
    state: NDArray[Any] = field(init=False)  # _RECORD (N,): what the file on disk holds, or will next
    unreadable: dict[str, str] = field(default_factory=dict)
    said: float = field(default_factory=time.monotonic)  # when the log was last told how far it is
    pixels_at: int = field(init=False)  # bytes: where the pixels begin
    pixels_fd: int = field(init=False)
    state_at: int = field(init=False)
    state_fd: int = field(init=False)

    @property
    def state_path(self) -> Path:
        return self.path.with_suffix(".state.npy")

    def run(self) -> None:
        self._open_files()
        try:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                self._look_through(pool)
                self._fill(pool)
        finally:
            os.close(self.pixels_fd)
            os.close(self.state_fd)
        self._report()

    def _open_files(self) -> None:
        """Open the two files; both are made anew unless both are whole."""
        n = len(self.films)
        pixels, records = _header(np.dtype(np.uint8), (n, self.size, self.size)), _header(_RECORD, (n,))
        self.pixels_at, self.state_at = len(pixels), len(records)
        whole = _whole(self.path, pixels, n * self.size**2) and _whole(self.state_path, records, n * _RECORD.itemsize)
        if not whole:
            if self.path.exists():
                log.warning("%s is damaged or half-made: built anew", self.path)
            self._name_idle()
            with _told(self.path, "cannot be made", self._mend(n)):
                self.state_path.unlink(missing_ok=True)  # first: no record may ever speak of other pixels
                self.path.unlink(missing_ok=True)
                self._require_room(n)
                _make(self.path, pixels, n * self.size**2)
                _make(self.state_path, records, n * _RECORD.itemsize)
        with _told(self.path, "cannot be opened"):
            self.state = np.frombuffer(self.state_path.read_bytes(), _RECORD, offset=self.state_at).copy()
            self.pixels_fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            self.state_fd = os.open(self.state_path, os.O_RDWR | os.O_CLOEXEC)

    def _look_through(self, pool: ThreadPoolExecutor) -> None:
        """Put back to work what cannot be relied on."""
        done = np.flatnonzero(self.state["mark"] == _DONE)
        self.state["mark"] = _TODO
        if not done.size:
            return
        task = self.progress.add_task(f"check {self.size} px", total=len(done))
        changed = damaged = 0
        chunks = (done[start : start + _CHUNK] for start in range(0, len(done), _CHUNK))
        faults = chain.from_iterable(pool.map(lambda chunk: [self._fault(int(i)) for i in chunk], chunks))
        for i, fault in self._tracked(task, done, faults):
            self.state["mark"][i] = _TODO if fault else _DONE
            changed += fault == "changed"
            damaged += fault == "damaged"
        self.progress.remove_task(task)
        if damaged:
            log.warning("%s: pixels of %d films are damaged: decoded again", self.path, damaged)
        if changed:
            log.warning("%s: %d films have changed since: decoded again", self.path, changed)

    def _fault(self, i: int) -> str:
        record = self.state[i]
        if self._stamp(i) != (record["size"], record["modified"]):
            return "changed"
        square_bytes = self.size**2
        with _told(self.path, "cannot be read", f"delete {self.path} and run again"):
            pixels = os.pread(self.pixels_fd, square_bytes, self.pixels_at + i * square_bytes)
        return "" if zlib.crc32(pixels) == record["crc"] else "damaged"

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        todo = np.flatnonzero(self.state["mark"] == _TODO)
        if not todo.size:
            return
        with _told(self.path, "cannot be written", self._mend(len(todo))):
            self._require_room(len(todo))
        total = len(self.films)
        task = self.progress.add_task(f"decode to {self.size} px", total=total, completed=total - len(todo))
        start = 0
        while start < len(todo):
            # All of the chunk lies in one stretch of `_CHUNK` records, which are then written together.
            first = int(todo[start]) // _CHUNK * _CHUNK
            stop = int(np.searchsorted(todo, first + _CHUNK))
            chunk = todo[start:stop]
            marks = list(self._tracked(task, chunk, pool.map(lambda i: self._decode(int(i)), chunk)))
            with _told(self.path, "cannot be written", self._mend(len(todo) - start)):
                os.fdatasync(self.pixels_fd)  # pixels first: a record on disk promises that they are there
                for i, record in marks:
                    self.state[i] = record
                records = self.state[first : first + _CHUNK].tobytes()
                _write(self.state_fd, records, self.state_at + first * _RECORD.itemsize)
                os.fdatasync(self.state_fd)
            start = stop
        self.progress.remove_task(task)

    def _decode(self, i: int) -> tuple[int, int, int, int]:
        """Write the film's pixels, and return its record."""
        film, square_bytes = self.films[i], self.size**2
        stamp = self._stamp(i)  # before it is read: if it changes meanwhile, the next opening sees that
        mark = _DONE
        with _told(film.path, "cannot be read", "let this user read it, or take it away and index again"):
            try:
                pixels = square(film.path, self.size).tobytes()
            except Undecodable as error:
                self.unreadable[film.name] = str(error)
                mark, pixels = _UNREADABLE, bytes(square_bytes)
        with _told(self.path, "cannot be written", self._mend()):
            _write(self.pixels_fd, pixels, self.pixels_at + i * square_bytes)
        return mark, *stamp, zlib.crc32(pixels)

    def _stamp(self, i: int) -> tuple[int, int]:
        path = self.films[i].path
        with _told(path, "cannot be read", "put it back, or index again"):
            status = path.stat()
        return status.st_size, status.st_mtime_ns

    def _tracked(self, task: TaskID, items: NDArray[Any], results: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Advance the bar by each result; where nobody watches it, say the same in the log now and then."""
        watched = self.progress.console.is_terminal and not self.progress.disable
        for item, result in zip(items, results, strict=True):
            self.progress.advance(task)
            if not watched and time.monotonic() - self.said >= _EVERY:
                self.said = time.monotonic()
                log.info("%s", _line(next(t for t in self.progress.tasks if t.id == task)))
            yield int(item), result

    def _report(self) -> None:
        """Name the films that are no images, in the log and in a file beside the cache."""
        path = self.path.with_suffix(".unreadable.csv")
        if not self.unreadable:
            path.unlink(missing_ok=True)
            log.info("%s: %d films of %d px", self.path, len(self.films), self.size)
            return
        bad = [film for film in self.films if film.name in self.unreadable]
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(("Image Index", "path", "reason"))
        rows.writerows((film.name, film.path, self.unreadable[film.name]) for film in bad)
        with _told(path, "cannot be written"):
            path.write_text(text.getvalue(), encoding="utf-8")
        if len(bad) == len(self.films):
            raise CacheFailed(
                f"none of the {len(bad):,} films can be read; the first is {bad[0].path}: "
                f"{self.unreadable[bad[0].name]}. Fetch the films again; all are named in {path}"
            )
        log.warning("%d of %d films cannot be read, named in %s", len(bad), len(self.films), path)

    def _require_room(self, films: int) -> None:
        needed, free = films * (self.size**2 + _RECORD.itemsize), shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise DiskFull(f"{self.path}: {_size(needed)} needed, {_size(free)} free on that disk; {self._mend()}")

    def _mend(self, films: int = 0) -> str:
        """What to do when the disk is full."""
        room = f"{_size(films * self.size**2)} more" if films else "room"
        return f"make {room} there or put the run on another disk, and run again: what is decoded stays"

    def _name_idle(self) -> None:
        """Caches of the same size for other films or another recipe are of no more use to this run."""
        for path in sorted(self.path.parent.glob(f"*-{self.size}-????????????.npy")):
            if path != self.path:
                log.info("%s (%s) is of other films or another recipe; delete it if no run needs it", path, _held(path))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel gives it back when the process dies, however it dies."""
    with _told(path, "cannot be opened"):
        file = path.open("a")
    with file:
        said: float | None = None
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if said is None or time.monotonic() - said >= _EVERY:
                    said = time.monotonic()
                    log.info("another process builds %s: waiting for it", path.with_suffix(".npy"))
                time.sleep(0.2)
            except OSError as error:
                raise CacheFailed(
                    f"{path}: cannot be locked ({error.strerror}); put the run on a disk that has file locks"
                ) from error
        yield


@contextmanager
def _told(path: Path, what: str, mend: str = "make it writable, or put the run elsewhere") -> Iterator[None]:
    """Whatever the system refuses becomes an error that names the file and the mend."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{path}: {what}, the disk is full ({error.strerror}); {mend}") from error
        raise CacheFailed(f"{path}: {what} ({error.strerror or error}); {mend}") from error


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file."""
    buffer = io.BytesIO()
    write_array_header_1_0(buffer, {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _whole(path: Path, header: bytes, length: int) -> bool:
    """Whether it is the file that `_make` made."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == len(header) + length and file.read(len(header)) == header
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CacheFailed(f"{path}: cannot be read ({error.strerror}); delete it and run again") from error


def _make(path: Path, header: bytes, length: int) -> None:
    """A file of zeros below its header, there whole or not at all. Sparse: room is taken as it is filled."""
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + length)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _write(fd: int, data: bytes, offset: int) -> None:
    """`pwrite` may write less than it was given, at the end of a disk above all."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _line(task: Task) -> str:
    left = task.time_remaining
    speed = f", {task.speed:,.1f} films/s" if task.speed else ""
    return f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}{speed}" + (
        f", {left / 60:,.1f} min left" if left is not None else ""
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _held(path: Path) -> str:
    return _size(path.stat().st_blocks * 512)
