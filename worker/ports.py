"""The few interfaces that have two or more implementations. Rooms implement them; the corridor calls them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.flag import Flag, Receipt
from schemas.identity import InstanceRef


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledFile:
    """Bytes at rest: a complete DICOM file (PS3.10), fsynced, its name fsynced in its folder."""

    path: str  # relative to the spool's root
    size: int  # bytes
    sha256: str  # of the encoded data set alone, so that a resend in the same syntax is known again


class Incoming(Protocol):
    """A file on its way into the spool; not visible to anybody until `commit`."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append bytes of the encoded data set. Raises `SpoolFull` when the disk refuses."""

    def commit(self, instance: InstanceRef) -> SpooledFile:
        """Fsync and give the file its lasting, content-derived name. Raises `SpoolFull`."""

    def discard(self) -> None:
        """Forget the bytes. Safe to call at any time, also after `commit` (then a no-op)."""


class Spool(Protocol):
    """Where received bytes rest until retention lets them go."""

    def begin(self, preamble: bytes) -> Incoming:
        """Start a file with `preamble` (128 zero bytes, DICM, File Meta). Raises `SpoolFull` below the watermark."""

    def path_of(self, file: str) -> Path:
        """A readable local path. Raises `SpoolError` when it is missing."""

    def remove(self, file: str) -> None:
        """Delete; a missing file is no error."""

    def free_bytes(self) -> int:
        """Free space where the spool lives."""

    def sweep(self, known: set[str]) -> int:
        """Remove what a crash left behind (unfinished files; finished ones not in `known`); returns how many."""


@dataclass(frozen=True, slots=True)
class Logits:
    """Outputs of both models for a batch, before calibration."""

    binary: NDArray[np.float32]  # (N,)
    findings: NDArray[np.float32]  # (N, 15), `LABELS` order
    binary_maps: NDArray[np.float32] | None = None  # (N, h, w, 1), only when asked for
    finding_maps: NDArray[np.float32] | None = None  # (N, h, w, 15)


class Runtime(Protocol):
    """Both models of one bundle, loaded and warm."""

    name: str  # "openvino" or "tensorflow"
    device: str  # e.g. "CPU bf16"
    best_batch: int  # films in one call; more of them only make the call longer, not each film cheaper

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        """uint8 (N, size, size, 3) -> logits. Thread-safe. Raises `OutOfMemory`; `ValueError` for another shape."""

    def close(self) -> None:
        """Release memory and threads."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What a C-FIND found, to be sent in this order."""

    status: int  # of every response: Pending, 0xFF00, or 0xFF01 where a key was asked for that is not supported
    identifiers: Iterator[bytes]  # encoded as the query was


@dataclass(frozen=True, slots=True)
class QueryFailure:
    """Why a C-FIND finds nothing: a failure status, and words of at most 64 characters without patient data."""

    status: int
    comment: str


class Window(Protocol):
    """What others look at by C-FIND on our port."""

    sop_classes: frozenset[str]

    def find(self, identifier: bytes, *, implicit_vr: bool) -> Matches | QueryFailure:
        """What matches an identifier that is encoded little endian. Thread-safe, and never raises on what was sent."""


class Channel(Protocol):
    """One way to tell a destination of a flag. The same flag twice is the same object at the other end."""

    name: str

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`, whose message names the fault and the mend."""

    def check(self) -> str:
        """Ask the destination whether it is there; returns words for a person. Raises `DeliveryError`."""

    def close(self) -> None:
        """Release connections."""
