"""Which model reads: taken for one film at a time, changed between films, closed when the last film is done with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from schemas.card import ModelCard
from schemas.image import GrayImage, Tensor
from schemas.outcome import ModelRef, Read
from worker.infer.engine import Engine


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """A model that is loaded and proven, and what changes with it."""

    engine: Engine
    model: ModelRef
    card: ModelCard


class Listener(Protocol):
    """Hears of every film that was read: a `worker.corridor.shadow.Shadow`."""

    model_id: str

    def offer(self, job: int, pixels: GrayImage, tensor: Tensor, aloud: Read) -> None:
        """Never waits, never fails."""


class Live:
    """The reader of the moment. Thread-safe.

    A film is read from beginning to end by the reader that it took: changing it loses no film and delays none.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.shadow: Listener | None = None
        self._held: Counter[Reader] = Counter()
        self._left: list[Reader] = []
        self._changed = threading.Condition()

    @property
    def reader(self) -> Reader:
        """Who reads the next film."""
        return self._reader

    @contextmanager
    def take(self) -> Iterator[Reader]:
        """The reader for one film, which stays open until the block ends."""
        with self._changed:
            reader = self._reader
            self._held[reader] += 1
        try:
            yield reader
        finally:
            with self._changed:
                self._held[reader] -= 1
                self._changed.notify_all()

    def replace(self, reader: Reader) -> None:
        """Read the next film with `reader`, be it new or one that left; the one before it is closed by `sweep`."""
        with self._changed:
            self._left = [left for left in (*self._left, self._reader) if left is not reader]
            self._reader = reader
            self._changed.notify_all()

    def sweep(self, keep: Collection[Reader] = ()) -> int:
        """Close readers that left and have no film in hand, but for those to `keep`; returns how many."""
        with self._changed:
            done = [reader for reader in self._left if not self._held[reader] and reader not in keep]
            self._left = [reader for reader in self._left if reader not in done]
            for reader in done:
                del self._held[reader]
        for reader in done:
            reader.engine.close()
        return len(done)

    def quiet(self, timeout: float) -> bool:
        """Wait until no film is being read, `timeout` seconds at most; whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held.total(), timeout)

    def close(self) -> None:
        """Close every reader; films in hand are answered first."""
        with self._changed:
            readers, self._left = [self._reader, *self._left], []
        for reader in readers:
            reader.engine.close()
