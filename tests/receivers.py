"""A hospital's receiving ends, one for each dialect that is pushed, and what can stand between them and hilum.

python -m tests.receivers FOLDER      in a process of its own: prints its ports as JSON, ends with its standard input
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import numpy as np

from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.http_receiver import HttpReceiver, Response
from tests.mllp import MllpReceiver
from worker.notify.association import Peer
from worker.notify.dicom_sc import DicomSc
from worker.notify.dicom_sr import DicomSr
from worker.notify.hl7_messages import Envelope
from worker.notify.hl7_order import Hl7Order
from worker.notify.hl7_oru import Hl7Oru
from worker.notify.mllp import MllpPeer
from worker.notify.webhook import Webhook
from worker.ports import Channel
from worker.simulate.pacs import Pacs

NAMES = ("pacs", "page", "emr", "orders", "hook")


class Receivers:
    """All of them, on the loopback."""

    def __init__(self, folder: Path) -> None:
        self._pacs = {name: Pacs(folder / name) for name in ("pacs", "page")}
        self._mllp = {name: MllpReceiver() for name in ("emr", "orders")}
        self._hook = HttpReceiver(lambda _: Response(status=204))
        self._all = {**self._pacs, **self._mllp, "hook": self._hook}

    def start(self) -> dict[str, int]:
        """Ports by name."""
        for each in self._all.values():
            each.start()
        return {name: self._all[name].port for name in NAMES}

    def stop(self) -> None:
        for each in self._all.values():
            each.stop()

    def held(self) -> dict[str, list[str]]:
        """What has arrived: object ids, each once, in the order of first arrival."""
        held = {name: list(pacs.stored) for name, pacs in self._pacs.items()}
        for name, mllp in self._mllp.items():
            held[name] = list(dict.fromkeys(str(message.segment("MSH")[10]) for message in list(mllp.messages)))
        held["hook"] = list(dict.fromkeys(json.loads(request.body)["id"] for request in list(self._hook.requests)))
        return held


def channel(name: str, port: int, *, timeout: float = 5.0) -> Channel:
    """hilum's own channel to the receiver `name`, at `port`: its own, or that of a proxy before it."""
    dicom = Peer(ae_title="PACS", host="127.0.0.1", port=port, calling_ae_title="HILUM")
    mllp = MllpPeer(host="127.0.0.1", port=port)
    makers: dict[str, Callable[[], Channel]] = {
        "pacs": lambda: DicomSr(name=name, peer=dicom, timeout=timeout),
        "page": lambda: DicomSc(name=name, peer=dicom, film=_film, timeout=timeout),
        "emr": lambda: Hl7Oru(name=name, peer=mllp, envelope=Envelope(), timeout=timeout),
        "orders": lambda: Hl7Order(name=name, peer=mllp, envelope=Envelope(), timeout=timeout),
        "hook": lambda: Webhook(
            name=name, url=f"http://127.0.0.1:{port}/", clock=lambda: datetime.now(UTC), timeout=timeout
        ),
    }
    return makers[name]()


def _film(_: InstanceRef) -> GrayImage:
    return np.full((300, 250), 128, np.uint8)


class Mood(StrEnum):
    """How what stands between behaves."""

    GOOD = "good"
    REFUSES = "refuses"  # nobody gets a word in
    STALLS = "stalls"  # takes everything, passes nothing on, says nothing
    RESETS = "resets"  # breaks off in the middle of the answer: the receiver has it, the sender does not know
    LATE = "late"  # the answer comes, after a while


class Proxy:
    """A TCP proxy with moods, in front of one port."""

    def __init__(self, target: int, *, delay: float = 0.5) -> None:
        self.mood = Mood.GOOD
        self._target = target
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.mood is Mood.REFUSES:
            _reset(client)
            return
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while self._pass_on(client, server):
                    pass
            except OSError:
                return

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """One look at both ends; whether there is more to come."""
        for end in select.select([client, server], [], [], 0.05)[0]:
            chunk = end.recv(1 << 16)
            if not chunk:
                return False
            if self.mood is Mood.STALLS:
                continue
            if end is client:
                server.sendall(chunk)
                continue
            if self.mood in {Mood.RESETS, Mood.REFUSES}:
                client.sendall(chunk[: len(chunk) // 2])
                _reset(client)
                return False
            if self.mood is Mood.LATE:
                time.sleep(self._delay)
            client.sendall(chunk)
        return True


def _reset(connection: socket.socket) -> None:
    """Closed with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def main() -> None:
    receivers = Receivers(Path(sys.argv[1]))
    print(json.dumps(receivers.start()), flush=True)
    sys.stdin.read()
    print(json.dumps({name: len(ids) for name, ids in receivers.held().items()}), flush=True)


if __name__ == "__main__":
    main()
