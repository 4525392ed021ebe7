"""What both HL7 v2 channels are: messages over MLLP, acknowledged by the application under the message's own number."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from schemas.errors import TransientFailure
from schemas.flag import Receipt
from worker.notify.hl7_ack import Acknowledgement, parse_ack, proof
from worker.notify.hl7_messages import Message
from worker.notify.mllp import MllpLine, MllpPeer

_REMEMBERED: Final = 1000  # messages that were sent and not answered


class Hl7Channel:
    """Sends messages over one line, one at a time. The same message again is the same to the receiver."""

    def __init__(self, *, name: str, peer: MllpPeer, timeout: float, idle: float) -> None:
        self.name = name
        self._line = MllpLine(peer, timeout=timeout, idle=idle)
        self._unanswered: OrderedDict[str, int] = OrderedDict()  # how often, by control ID

    def check(self) -> str:
        """Whether somebody listens; nothing is sent about anybody. Raises `DeliveryError`."""
        return self._line.check()

    def close(self) -> None:
        """Release the connection."""
        self._line.close()

    def deliver(self, message: Message) -> Receipt:
        """Send and wait for the acknowledgement. Raises `TransientFailure` or `PermanentFailure`."""
        ack = self._line.ask(
            message.encoded, lambda block: self._answer(block, message), lambda: self._sending(message.control_id)
        )
        times = self._unanswered.pop(message.control_id)
        return Receipt(object_id=message.control_id, proof=proof(ack, self._line.peer, sent_before=times > 1))

    def _sending(self, control_id: str) -> None:
        self._unanswered[control_id] = self._unanswered.pop(control_id, 0) + 1
        if len(self._unanswered) > _REMEMBERED:
            self._unanswered.popitem(last=False)

    def _answer(self, block: bytes, message: Message) -> Acknowledgement | None:
        ack = parse_ack(block)
        if ack is None:
            raise TransientFailure(f"{self._line.peer}: its answer is no acknowledgement: is the port right?")
        if not ack.control_id:
            raise TransientFailure(
                f"{self._line.peer}: its answer ({ack}) does not say to which message: look at its log"
            )
        return ack if ack.control_id == message.control_id else None  # of another message, late
