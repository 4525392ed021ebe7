"""The channel that changes the priority of the order itself, at whoever keeps the orders: RIS or worklist manager."""

from __future__ import annotations

from schemas.flag import Flag, Receipt
from worker.notify.hl7_delivery import Hl7Channel
from worker.notify.hl7_messages import Envelope, OrderMessage, PriorityIn, build_order
from worker.notify.idle import IDLE_SECONDS
from worker.notify.mllp import MllpPeer


class Hl7Order(Hl7Channel):
    """Kind `hl7-order`: OMI^O23 or ORM^O01 over MLLP. The same flag twice is the same message, by its control ID."""

    def __init__(
        self,
        *,
        name: str,
        peer: MllpPeer,
        envelope: Envelope,
        message: OrderMessage = "OMI^O23",
        priority_in: PriorityIn = "both",
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(name=name, peer=peer, timeout=timeout, idle=idle)
        self._envelope = envelope
        self._message = message
        self._priority_in = priority_in

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        return self.deliver(build_order(flag, self._envelope, self._message, self._priority_in))
