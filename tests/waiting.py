"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def eventually(what: Callable[[], Any], seconds: float, words: str = "it did not come", every: float = 0.01) -> Any:
    """The first true answer of `what`; fails with `words` when there is none in time."""
    until = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < until, f"{words} ({seconds} s)"
        time.sleep(every)
    return answer
