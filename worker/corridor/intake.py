"""Story one: a modality's bytes come in, and are safe before it is told so (door 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from schemas.decision import Urgency
from schemas.identity import Sender
from worker.corridor.bell import Bell
from worker.ports import Incoming
from worker.receive.head import Head
from worker.record.instances import Instances

log = logging.getLogger("hilum.intake")


class Intake:
    """Called by the listener for each complete C-STORE; returning means that 0x0000 may be answered."""

    def __init__(self, instances: Instances, work: Bell, clock: Callable[[], datetime]) -> None:
        self._instances = instances
        self._work = work
        self._clock = clock

    def __call__(self, head: Head, sender: Sender, incoming: Incoming, order_urgency: Urgency) -> None:
        """Fsync the bytes, commit the row, ring for a reader. Raises `HilumError`: the sender keeps the film."""
        file = incoming.commit(head.instance)
        received = self._instances.receive(head.instance, file, sender, head.context, order_urgency, self._clock())
        self._work.ring()
        log.info("received job=%s outcome=%s version=%s", received.job_id, received.outcome, received.version)
