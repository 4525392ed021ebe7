"""Connections that are kept between sends that follow one another closely, and let go when none does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

IDLE_SECONDS: Final = 5.0


class Idle:
    """Lets go of what its owner keeps once it has not been used for some time.

    Parameters
    ----------
    seconds:
        How long it may lie idle.
    lock:
        The owner's, held while the connection is in use; `used` and `cancel` are called with it held.
    keeps:
        Whether there is anything to let go.
    let_go:
        Does so, with the lock held. What it returns is called once the lock is free again.
    """

    def __init__(
        self,
        seconds: float,
        lock: AbstractContextManager[object],
        *,
        keeps: Callable[[], bool],
        let_go: Callable[[], Callable[[], None] | None],
    ) -> None:
        self._seconds = seconds
        self._lock = lock
        self._keeps = keeps
        self._let_go = let_go
        self._used_at = 0.0
        self._timer: threading.Timer | None = None

    def used(self) -> None:
        """It was in use until now."""
        self._used_at = time.monotonic()
        if self._timer is None and self._keeps():
            self._arm(self._seconds)

    def cancel(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            left = self._used_at + self._seconds - time.monotonic()
            if self._keeps() and left > 0:
                self._arm(left)
                return
            afterwards = self._let_go()
        if afterwards is not None:
            afterwards()
