"""Story three: what was decided is told to each destination, in order, until it is proven to have arrived."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from schemas.errors import LeaseLost, PermanentFailure, RecordError, TransientFailure
from schemas.flag import Receipt
from schemas.standing import Standing
from worker.corridor.bell import Bell
from worker.corridor.breaker import Breaker, BreakerRules
from worker.corridor.insist import insist
from worker.ports import Channel
from worker.record.destinations import Destinations
from worker.record.outbox import Delivery, Outbox, Sent

T = TypeVar("T")
log = logging.getLogger("hilum.delivery")

CUT_OFF: Final = "hilum was stopped while it was being sent; it is sent again when hilum is back"
_TO_CLOSE: Final = 1.0  # seconds for the channels to close, and for what that cut off to be noted


@dataclass(frozen=True, kw_only=True)
class DeliveryRules(BreakerRules):
    """Leases, back-off, and how much is taken in hand at once.

    A commit costs as much as a delivery, so several flags share one: as many as the destination takes in `ahead`
    seconds. A more urgent flag waits no longer than that for its turn, and where this process decides it, not at all.
    """

    lease: timedelta = timedelta(seconds=60)
    attempts: int = 5  # of a flag that fails by a fault of ours, before it is set aside for a person
    look_every: float = 0.25  # seconds
    ahead: float = 0.1  # seconds
    most: int = 16  # flags


class Courier:
    """One thread for one destination, so that a slow one never delays another."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        destinations: Destinations,
        channel: Channel,
        news: Bell,
        owner: str,
        rules: DeliveryRules,
        clock: Callable[[], datetime],
    ) -> None:
        self._outbox, self._destinations = outbox, destinations
        self._channel, self._news = channel, news
        self._owner, self._rules, self._clock = owner, rules, clock
        self._breaker = Breaker(channel.name, rules, clock())
        self._said: Standing | None = None  # what the record has of the breaker
        self._pace = rules.ahead  # seconds for a flag, as last seen
        self._stopping = threading.Event()
        self._cut_off = False
        self._thread = threading.Thread(target=self._run, name=f"courier-{channel.name}", daemon=True)

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def end(self) -> None:
        """Begin nothing more; what waits stays in the outbox. Returns at once."""
        self._stopping.set()
        self._news.ring()

    def wait(self, timeout: float) -> None:
        """Until the delivery in hand is finished, or for `timeout` seconds."""
        self._thread.join(timeout)

    def close(self) -> None:
        """Close the channel. A delivery that is still in hand is cut off, and stays in the outbox."""
        self._cut_off = True
        self._channel.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._news.rung
            try:
                claimed = self._outbox.claim(
                    self._channel.name, self._owner, self._how_many(), self._rules.lease, self._clock()
                )
                if claimed:
                    self._breaker.tries(self._clock())
                self._say()
                self._deliver(claimed, seen)
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

    def _how_many(self) -> int:
        if not self._breaker.is_sound:
            return 1
        return max(1, min(self._rules.most, int(self._rules.ahead / max(self._pace, 1e-6))))

    def _deliver(self, claimed: Sequence[Delivery], seen: int) -> None:
        """One after the other. What went through is noted together; what was not reached goes back untried."""
        began = time.monotonic()
        sent: list[Sent] = []
        waiting = list(claimed)
        rest = 0.0
        try:
            while waiting and not rest:
                delivery = waiting.pop(0)
                receipt, rest = self._send(delivery)
                if receipt is not None:
                    sent.append(Sent(id=delivery.id, receipt=receipt, at=self._clock()))
                    if not receipt.proven:  # its proof may be on the way, and asks for what is noted
                        self._note(sent)
                        sent = []
                took = time.monotonic() - began
                if took > self._rules.ahead or self._news.rung != seen or self._stopping.is_set():
                    break
        finally:
            tried = len(claimed) - len(waiting)
            self._pace = (time.monotonic() - began) / max(1, tried)
            if sent or waiting:
                self._note(sent, [delivery.id for delivery in waiting])
        if rest:
            self._say()
            self._stopping.wait(rest)

    def _send(self, delivery: Delivery) -> tuple[Receipt | None, float]:
        """The receipt, or None and how many seconds the destination rests."""
        began = time.perf_counter()
        try:
            receipt = self._channel.send(delivery.flag)
        except PermanentFailure as error:
            words = str(error)
            self._tell(lambda: self._outbox.refuse(delivery.id, self._owner, words, self._clock()))
            log.error("refused destination=%s delivery=%s error=%s", self._channel.name, delivery.id, error)
            self._breaker.answered(self._clock())
        except TransientFailure as error:
            if self._cut_off:  # by us: it says nothing of the destination, and may have arrived
                self._tell(lambda: self._outbox.retry(delivery.id, self._owner, CUT_OFF, self._clock()))
                log.info("cut-off destination=%s delivery=%s", self._channel.name, delivery.id)
                return None, 0.0
            # The destination rests, not the flag: when it is back, the most urgent goes first, not the oldest failure.
            words = str(error)
            rest = self._breaker.failed(words, self._clock())
            self._tell(lambda: self._outbox.retry(delivery.id, self._owner, words, self._clock()))
            log.warning("resting destination=%s seconds=%.1f error=%s", self._channel.name, rest, error)
            return None, rest
        except Exception as error:  # noqa: BLE001  a fault of ours: it must not hold up the flags behind it
            self._set_back(delivery, error)
        else:
            self._breaker.answered(self._clock())
            ms = 1000 * (time.perf_counter() - began)
            log.info("sent destination=%s delivery=%s ms=%.1f", self._channel.name, delivery.id, ms)
            return receipt, 0.0
        return None, 0.0

    def _set_back(self, delivery: Delivery, error: Exception) -> None:
        words = f"internal error {type(error).__name__}; see the log, then replay"
        log.error("delivery-failed destination=%s delivery=%s", self._channel.name, delivery.id, exc_info=True)
        if delivery.attempt >= self._rules.attempts:
            self._tell(lambda: self._outbox.refuse(delivery.id, self._owner, words, self._clock()))
        else:
            wait = timedelta(seconds=self._rules.rest(delivery.attempt))
            self._tell(lambda: self._outbox.retry(delivery.id, self._owner, words, self._clock() + wait))

    def _note(self, sent: Sequence[Sent], untried: Sequence[int] = ()) -> None:
        # Somebody else holds what is lost, and sends the same objects again.
        for lost in self._tell(lambda: self._outbox.settle(self._owner, sent, untried)):
            log.warning("lease-lost destination=%s delivery=%s", self._channel.name, lost)

    def _say(self) -> None:
        """Let whoever looks see how the destination does; that this cannot be said must not hold up a flag."""
        standing = self._breaker.standing
        if standing == self._said:
            return
        try:
            self._destinations.note(standing)
        except RecordError as error:
            log.warning("standing-not-noted destination=%s error=%s", self._channel.name, error)
        else:
            self._said = standing

    def _tell(self, tell: Callable[[], T]) -> T:
        return insist(
            tell,
            seconds=self._rules.lease.total_seconds(),
            again_every=self._rules.look_every,
            stopping=self._stopping,
        )


class Couriers:
    """One for each destination; they begin and end together."""

    def __init__(self, couriers: Sequence[Courier]) -> None:
        self._couriers = tuple(couriers)

    def start(self) -> None:
        """Start delivering."""
        for courier in self._couriers:
            courier.start()

    def stop(self, timeout: float = 5.0) -> None:
        """`timeout` seconds for all the deliveries in hand together, however many destinations stall.

        Then every channel is closed, side by side, because a channel may wait for its peer to agree; a second for that.
        """
        for courier in self._couriers:
            courier.end()
        self._wait(timeout)
        closing = [threading.Thread(target=courier.close, daemon=True) for courier in self._couriers]
        until = time.monotonic() + _TO_CLOSE
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, until - time.monotonic()))
        self._wait(until - time.monotonic())

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for courier in self._couriers:
            courier.wait(max(0.0, until - time.monotonic()))
