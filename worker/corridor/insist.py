"""What was done must reach the record, also when the record is away for a moment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import LeaseLost, RecordError

T = TypeVar("T")
log = logging.getLogger("hilum.corridor")


def insist(tell: Callable[[], T], *, seconds: float, again_every: float, stopping: threading.Event) -> T:
    """`tell()`, again and again while the record is away, for as long as the lease lasts.

    Let go at the first fault, what was done would only be found when its lease has lapsed, and be done again.

    Raises
    ------
    LeaseLost
        At once: another worker has it now.
    RecordError
        Still away after `seconds`, or the worker is stopping.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return tell()
        except LeaseLost:
            raise
        except RecordError as error:
            if time.monotonic() > until or stopping.wait(again_every):
                raise
            log.warning("record-again error=%s", error)
