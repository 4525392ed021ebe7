"""A PACS (pynetdicom), and what a structured report says to whoever reads its content tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread

from tests.contract.channel.receiver import Held
from worker.notify.association import Peer
from worker.notify.dicom_sr import DicomSr
from worker.ports import Channel
from worker.simulate.pacs import Pacs


class SrReceiver:
    def __init__(self, folder: Path) -> None:
        self.pacs = Pacs(folder / "pacs")

    def start(self) -> None:
        self.pacs.start()

    def stop(self) -> None:
        self.pacs.stop()

    def channel(self, *, timeout: float = 5.0) -> Channel:
        peer = Peer(ae_title="PACS", host="127.0.0.1", port=self.pacs.port, calling_ae_title="HILUM")
        return DicomSr(name="pacs", peer=peer, timeout=timeout)

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
