"""A system that shows results (python-hl7), and what an ORU^R01 says to whoever reads its fields."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import hl7

from tests.contract.channel.receiver import Held
from tests.mllp import MllpReceiver
from worker.notify.hl7_messages import Envelope
from worker.notify.hl7_oru import Hl7Oru
from worker.notify.mllp import MllpPeer
from worker.ports import Channel


class Hl7Receiver:
    """What both HL7 channels need; a channel's own receiver says what a message of its means."""

    def __init__(self) -> None:
        self.mllp = MllpReceiver()

    def start(self) -> None:
        self.mllp.start()

    def stop(self) -> None:
        self.mllp.stop()

    @property
    def peer(self) -> MllpPeer:
        return MllpPeer(host="127.0.0.1", port=self.mllp.port)

    def distinct(self) -> Iterable[hl7.Message]:
        """Messages in the order of first arrival; a control ID that was there before is a resend."""
        messages: dict[str, hl7.Message] = {}
        for message in self.mllp.messages:
            messages.setdefault(str(message.segment("MSH")[10]), message)
        return messages.values()

    def refuse(self) -> None:
        self.mllp.code, self.mllp.errors = "AR", ("ERR||MSH^1^9|200^Unsupported message type^HL70357|E",)

    def overload(self) -> None:
        self.mllp.code, self.mllp.errors = "AE", ("ERR|||207^Application internal error^HL70357|E",)

    def stall(self) -> None:
        self.mllp.stall = True

    def reset(self) -> None:
        self.mllp.drop = True

    def heal(self) -> None:
        self.mllp.heal()


class OruReceiver(Hl7Receiver):
    def channel(self, *, timeout: float = 5.0) -> Channel:
        return Hl7Oru(name="emr", peer=self.peer, envelope=Envelope(), timeout=timeout)

    def held(self) -> list[Held]:
        return [_held(message) for message in self.distinct()]


def make(folder: Path) -> OruReceiver:
    return OruReceiver()


def revision_in(words: str) -> int:
    (revision,) = re.findall(r"revision (\d+)\.", words)
    return int(revision)


def priority(message: hl7.Message) -> str:
    """OBR-27.6 and TQ1-9.1, which say the same; empty where nothing is said of it."""
    in_obr = "".join(str(message.segment("OBR")[27]).split("^")[5:6]) if len(message.segment("OBR")) > 27 else ""
    in_tq1 = "".join(str(tq1[9]).split("^")[0] for tq1 in message if str(tq1[0]) == "TQ1")
    assert in_obr == in_tq1
    return in_obr


def _held(message: hl7.Message) -> Held:
    observations = message.segments("OBX")
    words = " ".join(message.unescape(str(observation[5])) for observation in observations)
    return Held(
        object_id=str(message.segment("MSH")[10]),
        revision=revision_in(words),
        withdrawn=any(str(observation[11]) in {"W", "D"} for observation in observations),
        urgent=priority(message) in {"S", "A"},
        words=words,
    )
