"""A PACS (pynetdicom), and what a structured report says to whoever reads its content tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset

from tests.contract.channel.habits import PacsHabits
from tests.contract.channel.receiver import Held
from worker.notify.dicom_sr import DicomSr
from worker.ports import Channel


class SrReceiver(PacsHabits):
    def channel(self, *, timeout: float = 5.0) -> Channel:
        return DicomSr(name="pacs", peer=self.peer, timeout=timeout)

    def held(self) -> list[Held]:
        return [_held(stored) for stored in self.stored()]


def make(folder: Path) -> SrReceiver:
    return SrReceiver(folder)


def _held(report: Dataset) -> Held:
    items = list(_items(report))
    (priority,) = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in report.ContentSequence[-1].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "260870009"
    ]
    texts = [item.TextValue for item in items if "TextValue" in item]
    codes = [item.ConceptCodeSequence[0].CodeMeaning for item in items if "ConceptCodeSequence" in item]
    return Held(
        object_id=report.SOPInstanceUID,
        revision=int(report.InstanceNumber),
        withdrawn=any("withdrew its flag" in text for text in texts),
        urgent=priority in {"Stat", "Urgent"},
        words=" ".join([*texts, *codes]),
    )


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)
