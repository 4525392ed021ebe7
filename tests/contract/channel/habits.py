"""Habits that receivers of one transport share; what they hold, and what they are called by, is their own."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, dcmread

from tests.http_receiver import HttpReceiver, Response
from worker.notify.association import Peer
from worker.simulate.pacs import Pacs


class PacsHabits:
    """A PACS (pynetdicom) that takes every storage SOP class."""

    def __init__(self, folder: Path) -> None:
        self.pacs = Pacs(folder / "pacs")

    @property
    def peer(self) -> Peer:
        return Peer(ae_title="PACS", host="127.0.0.1", port=self.pacs.port, calling_ae_title="HILUM")

    def stored(self) -> list[Dataset]:
        return [dcmread(path) for path in self.pacs.stored.values()]

    def start(self) -> None:
        self.pacs.start()

    def stop(self) -> None:
        self.pacs.stop()

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


class HttpHabits:
    """An HTTP server; how it refuses and says not now is its own."""

    http: HttpReceiver
    refusal: Response
    not_now: Response

    def start(self) -> None:
        self.http.start()

    def stop(self) -> None:
        self.http.stop()

    def refuse(self) -> None:
        self.http.habit = self.refusal

    def overload(self) -> None:
        self.http.habit = self.not_now

    def stall(self) -> None:
        self.http.stall = True

    def reset(self) -> None:
        self.http.drop = True

    def heal(self) -> None:
        self.http.heal()
