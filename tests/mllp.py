"""An MLLP receiver by python-hl7, which shares nothing with ours, and the habits that it can be given."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from typing import Any

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

CODECS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "ASCII": "ascii"}


class MllpReceiver:
    """Listens on the loopback. Every message is parsed, and acknowledged under its own control ID by `code`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.tls = tls
        self.messages: list[hl7.Message] = []
        self.connections = 0
        self.heal()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[HL7StreamWriter] = set()
        self._thread: threading.Thread | None = None

    def heal(self) -> None:
        """Behave: acknowledge everything."""
        self.code = "AA"
        self.errors: tuple[str, ...] = ()  # ERR segments of the acknowledgement
        self.stall = False  # never answer
        self.drop = False  # hang up instead of answering
        self.hang_up_after = False  # answer, then hang up
        self.rewrite: Callable[[bytes], bytes] = bytes  # of the acknowledgement, last thing before it goes out

    def start(self) -> None:
        """Listen; after `stop` again on the same port."""
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._thread = None

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            start_hl7_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, encoding="latin-1")
        )
        self.port = self._server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    await self._answer(await reader.readblock(), writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, block: bytes, writer: HL7StreamWriter) -> None:
        if self.drop:
            raise ConnectionResetError
        message = parse(block)
        if self.code in {"AA", "CA"}:
            self.messages.append(message)
        if self.stall:
            await asyncio.sleep(3600)
        hang_up = self.hang_up_after  # as it is before the sender hears of it
        ack: Any = message.create_ack(self.code)
        ack.assign_field(str(message.segment("MSH")[10]), segment="MSA", field_num=2)
        segments = [str(ack).rstrip("\r"), *self.errors]
        writer.writeblock(self.rewrite(("\r".join(segments) + "\r").encode("latin-1")))
        await writer.drain()
        if hang_up:
            raise ConnectionResetError


def parse(block: bytes) -> hl7.Message:
    """The message, in the character set that it says it is in (MSH-18)."""
    header = block.split(b"\r", 1)[0].split(b"|")
    message = hl7.parse(block.decode(CODECS[header[17].decode("ascii")]))
    assert isinstance(message, hl7.Message)
    return message
