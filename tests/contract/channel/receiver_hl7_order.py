"""A system that keeps the orders (python-hl7), and what an OMI^O23 changes of one."""

from __future__ import annotations

from pathlib import Path

import hl7

from tests.contract.channel.receiver import Held
from tests.contract.channel.receiver_hl7_oru import Hl7Receiver, priority, revision_in
from worker.notify.hl7_messages import Envelope
from worker.notify.hl7_order import Hl7Order
from worker.ports import Channel


class OrderReceiver(Hl7Receiver):
    def channel(self, *, timeout: float = 5.0) -> Channel:
        return Hl7Order(name="ris", peer=self.peer, envelope=Envelope(), timeout=timeout)

    def held(self) -> list[Held]:
        return [_held(message) for message in self.distinct()]


def make(folder: Path) -> OrderReceiver:
    return OrderReceiver()


def _held(message: hl7.Message) -> Held:
    assert str(message.segment("ORC")[1]) == "XO", "whatever happens, the order is changed and never cancelled"
    words = " ".join(message.unescape(str(note[3])) for note in message.segments("NTE"))
    return Held(
        object_id=str(message.segment("MSH")[10]),
        revision=revision_in(words),
        withdrawn="withdrew its flag" in words and priority(message) == "R",
        urgent=priority(message) in {"S", "A"},
        words=words,
    )
