"""A PACS (pynetdicom), and what a summary page says to whoever cannot see it: its Image Comments."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydicom import Dataset

from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.contract.channel.habits import PacsHabits
from tests.contract.channel.receiver import Held
from worker.notify.dicom_sc import DicomSc
from worker.ports import Channel


class ScReceiver(PacsHabits):
    def channel(self, *, timeout: float = 5.0) -> Channel:
        return DicomSc(name="pacs", peer=self.peer, film=_film, timeout=timeout)

    def held(self) -> list[Held]:
        return [_held(stored) for stored in self.stored()]


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
