"""Which policy films are decided by: the record is looked at about once a second, by whichever reader needs it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from schemas.decision import Policy
from schemas.errors import RecordError
from schemas.policy import CONFIGURED, InForce
from worker.decide.policy import thresholds
from worker.record.policies import Policies

log = logging.getLogger("hilum.policy")

EVERY: Final = 1.0  # seconds between two looks


class PolicyWatch:
    """The policy in force. Thread-safe; while the record does not answer, the policy that was known stays."""

    def __init__(
        self,
        policies: Policies,
        configured: Policy,
        clock: Callable[[], datetime],
        *,
        every: float = EVERY,
    ) -> None:
        self._policies, self._configured, self._clock, self._every = policies, configured, clock, every
        self._known: tuple[int, Policy] | None = None  # None: not looked yet
        self._looking = threading.Lock()
        self._next = 0.0

    def in_force(self, card: Mapping[str, float]) -> InForce:
        """For a film that was read by the model of this card's operating points.

        Raises
        ------
        ConfigurationError
            Neither the policy nor the card has an operating point for some finding.
        RecordError
            It was never known which policy is in force: nothing is decided by another than that.
        """
        number, policy = self._look()
        return InForce(number=number, policy=policy, operating_points=thresholds(policy, card))

    def _look(self) -> tuple[int, Policy]:
        known = self._known
        if known is not None and (time.monotonic() < self._next or not self._looking.acquire(blocking=False)):
            return known
        if known is None:
            self._looking.acquire()  # the first film waits for the first look, whoever takes it
        try:
            self._known = self._found()
        except RecordError as error:
            if self._known is None:
                raise
            log.warning("policy-unknown known=%d error=%s", self._known[0], error)
        finally:
            self._next = time.monotonic() + self._every
            self._looking.release()
        return self._known

    def _found(self) -> tuple[int, Policy]:
        found = self._policies.current(self._clock())
        now = (CONFIGURED, self._configured) if found is None else (found.number, found.policy)
        if self._known is None or now[0] != self._known[0]:
            log.info("policy-in-force number=%d", now[0])
        return now
