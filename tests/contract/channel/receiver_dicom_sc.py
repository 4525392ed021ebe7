"""A PACS (pynetdicom), and what a summary page says to whoever cannot see it: its Image Comments."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.contract.channel.receiver import Held
from worker.notify.association import Peer
from worker.notify.dicom_sc import DicomSc
from worker.ports import Channel
from worker.simulate.pacs import Pacs


class ScReceiver:
    def __init__(self, folder: Path) -> None:
        self.pacs = Pacs(folder / "pacs")

    def start(self) -> None:
        self.pacs.start()

    def stop(self) -> None:
        self.pacs.stop()

    def channel(self, *, timeout: float = 5.0) -> Channel:
        peer = Peer(ae_title="PACS", host="127.0.0.1", port=self.pacs.port, calling_ae_title="HILUM")
        return DicomSc(name="pacs", peer=peer, film=_film, timeout=timeout)

    def held(self) -> list[Held]:
        return [_held(dcmread(path)) for path in self.pacs.stored.values()]

    def refuse(self) -> None:
        self.pacs.answer = 0x0122

    def overload(self) -> None:
        self.pacs.answer = 0xA700

    def stall(self) -> None:
        self.pacs.stall = 30.0

    def reset(self) -> None:
        self.pacs.drop = True

    def heal(self) -> None:
        self.pacs.answer, self.pacs.stall, self.pacs.drop = 0x0000, 0.0, False


def make(folder: Path) -> ScReceiver:
    return ScReceiver(folder)


def _film(_: InstanceRef) -> GrayImage:
    return np.full((300, 250), 128, np.uint8)


def _held(page: Dataset) -> Held:
    words = str(page.ImageComments)
    return Held(
        object_id=page.SOPInstanceUID,
        revision=int(page.InstanceNumber),
        withdrawn="withdrew its flag" in words,
        urgent=re.search(r"raised this study: (STAT|URGENT)\.", words) is not None,
        words=words,
    )
