"""Wakes whoever waits for work in this process at once; work from other processes is found by polling."""

from __future__ import annotations

import threading


class Bell:
    """A counter that can be waited on. No ring is missed: a waiter passes the count that it has seen."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = 0

    @property
    def rung(self) -> int:
        """How often it has rung. Read it before looking for work, then pass it to `wait`."""
        return self._rung

    def ring(self) -> None:
        """Wake every waiter."""
        with self._changed:
            self._rung += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> bool:
        """Block until it has rung more than `seen` times, or for `timeout` seconds; whether it rang."""
        with self._changed:
            return self._changed.wait_for(lambda: self._rung > seen, timeout)
