"""A strict UPS manager (pynetdicom), and what its tasks say to whoever takes one up."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.dataset import Dataset

from tests.contract.channel.receiver import Held
from tests.ups_manager import UpsManager
from worker.notify.association import Peer
from worker.notify.dicom_ups import DicomUps
from worker.ports import Channel


class UpsReceiver:
    def __init__(self) -> None:
        self.manager = UpsManager()

    def start(self) -> None:
        self.manager.start()

    def stop(self) -> None:
        self.manager.stop()

    def channel(self, *, timeout: float = 5.0) -> Channel:
        peer = Peer(ae_title="UPSMANAGER", host="127.0.0.1", port=self.manager.port, calling_ae_title="HILUM")
        return DicomUps(name="tasks", peer=peer, timeout=timeout)

    def held(self) -> list[Held]:
        held = {}
        for operation, uid, said in self.manager.messages:
            message = _held(operation, uid, said)
            held.setdefault(message.object_id, message)
        return list(held.values())

    def refuse(self) -> None:
        self.manager.answer = 0x0124

    def overload(self) -> None:
        self.manager.answer = 0x0213

    def stall(self) -> None:
        self.manager.stalled = True

    def reset(self) -> None:
        self.manager.drop = True

    def heal(self) -> None:
        self.manager.heal()


def make(folder: Path) -> UpsReceiver:
    return UpsReceiver()


def _held(operation: str, uid: str, said: Dataset) -> Held:
    cancelled = operation == "cancel"
    words = said.ReasonForCancellation if cancelled else said.CommentsOnTheScheduledProcedureStep
    parameters = [item.TextValue for item in said.get("ScheduledProcessingParametersSequence", ())]
    (revision,) = re.findall(r"revision (\d+)\.", words)
    return Held(
        object_id=f"{uid}#{revision}{' withdrawn' if cancelled else ''}",
        revision=int(revision),
        withdrawn=cancelled,
        urgent=not cancelled and said.ScheduledProcedureStepPriority in {"HIGH", "MEDIUM"},
        words=" ".join([words, *parameters]),
    )
