"""The channel that sends a flag as a result, to whoever shows results: RIS, EMR, an integration engine."""

from __future__ import annotations

from schemas.flag import Flag, Receipt
from worker.notify.hl7_delivery import Hl7Channel
from worker.notify.hl7_messages import Envelope, PriorityIn, build_oru
from worker.notify.idle import IDLE_SECONDS
from worker.notify.mllp import MllpPeer


class Hl7Oru(Hl7Channel):
    """Kind `hl7-oru`: ORU^R01 over MLLP. The same flag twice is the same message, by its control ID."""

    def __init__(
        self,
        *,
        name: str,
        peer: MllpPeer,
        envelope: Envelope,
        priority_in: PriorityIn = "both",
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(name=name, peer=peer, timeout=timeout, idle=idle)
        self._envelope = envelope
        self._priority_in = priority_in

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        return self.deliver(build_oru(flag, self._envelope, self._priority_in))
