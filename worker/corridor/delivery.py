"""Story three: what was decided is told to each destination, in order, until it is proven to have arrived."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.errors import LeaseLost, PermanentFailure, RecordError, TransientFailure
from worker.corridor.bell import Bell
from worker.corridor.insist import insist
from worker.ports import Channel
from worker.record.outbox import Delivery, Outbox

log = logging.getLogger("hilum.delivery")


@dataclass(frozen=True, kw_only=True)
class DeliveryRules:
    """Leases and back-off. A destination that fails is left alone for `pause` x 2^failures, at most `longest`."""

    lease: timedelta = timedelta(seconds=60)
    pause: float = 0.5  # seconds
    longest: float = 60.0  # seconds
    attempts: int = 5  # of a flag that fails by a fault of ours, before it is set aside for a person
    look_every: float = 0.25  # seconds


class Courier:
    """One thread for one destination, so that a slow one never delays another."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        channel: Channel,
        news: Bell,
        owner: str,
        rules: DeliveryRules,
        clock: Callable[[], datetime],
    ) -> None:
        self._outbox, self._channel, self._news = outbox, channel, news
        self._owner, self._rules, self._clock = owner, rules, clock
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"courier-{channel.name}", daemon=True)

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Finish the delivery in hand and close the channel; what waits stays in the outbox."""
        self._stopping.set()
        self._news.ring()
        self._thread.join(timeout)
        self._channel.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._news.rung
            try:
                claimed = self._outbox.claim(self._channel.name, self._owner, 1, self._rules.lease, self._clock())
                for delivery in claimed:
                    self._deliver(delivery)
            except LeaseLost:
                log.warning("lease-lost destination=%s", self._channel.name)
            except RecordError as error:
                log.error("record-unavailable error=%s", error)
                self._stopping.wait(1.0)
            except Exception:
                log.error("courier-failed destination=%s", self._channel.name, exc_info=True)
                self._stopping.wait(1.0)
            else:
                if not claimed:
                    self._news.wait(seen, self._rules.look_every)

    def _deliver(self, delivery: Delivery) -> None:
        began = time.perf_counter()
        try:
            receipt = self._channel.send(delivery.flag)
        except PermanentFailure as error:
            words = str(error)
            self._tell(lambda: self._outbox.refuse(delivery.id, self._owner, words, self._clock()))
            log.error("refused destination=%s delivery=%s error=%s", self._channel.name, delivery.id, error)
        except TransientFailure as error:
            self._rest(delivery, error)
        except Exception as error:  # noqa: BLE001  a fault of ours: it must not hold up the flags behind it
            self._set_back(delivery, error)
        else:
            self._failures = 0
            self._tell(lambda: self._outbox.sent(delivery.id, self._owner, receipt, self._clock()))
            ms = 1000 * (time.perf_counter() - began)
            log.info("sent destination=%s delivery=%s ms=%.1f", self._channel.name, delivery.id, ms)

    def _tell(self, tell: Callable[[], None]) -> None:
        insist(
            tell,
            seconds=self._rules.lease.total_seconds(),
            again_every=self._rules.look_every,
            stopping=self._stopping,
        )

    def _wait(self, failures: int) -> float:
        wait = min(self._rules.longest, self._rules.pause * 2.0 ** min(failures, 20))
        return wait * random.uniform(0.75, 1.25)  # noqa: S311  jitter, not a secret

    def _rest(self, delivery: Delivery, error: TransientFailure) -> None:
        # The destination rests, not the flag: when it is back, the most urgent goes first, not the oldest failure.
        self._failures += 1
        wait = self._wait(self._failures)
        self._tell(lambda: self._outbox.retry(delivery.id, self._owner, str(error), self._clock()))
        log.warning("resting destination=%s seconds=%.1f error=%s", self._channel.name, wait, error)
        self._stopping.wait(wait)

    def _set_back(self, delivery: Delivery, error: Exception) -> None:
        words = f"internal error {type(error).__name__}; see the log, then replay"
        log.error("delivery-failed destination=%s delivery=%s", self._channel.name, delivery.id, exc_info=True)
        if delivery.attempt >= self._rules.attempts:
            self._tell(lambda: self._outbox.refuse(delivery.id, self._owner, words, self._clock()))
        else:
            wait = timedelta(seconds=self._wait(delivery.attempt))
            self._tell(lambda: self._outbox.retry(delivery.id, self._owner, words, self._clock() + wait))
