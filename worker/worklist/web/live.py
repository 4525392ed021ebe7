"""News for open pages: one look at the record for all browsers, and only while somebody watches."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.responses import PlainTextResponse, Response, StreamingResponse

log = logging.getLogger("hilum.web")

EVERY: Final = 0.2  # seconds between two looks
HEARTBEAT: Final = 10.0  # seconds; a page that hears nothing for three of them knows that it is cut off
MOST: Final = 200  # open pages

AWAY: Final = ""  # the token while the record does not answer


class Newsroom:
    """Tells subscribers the record's change token whenever it changes. All calls from one event loop."""

    def __init__(self, change_token: Callable[[], str]) -> None:
        """`change_token` may block: it is called in a thread."""
        self._change_token = change_token
        self._subscribers: set[asyncio.Queue[str]] = set()
        self._token: str | None = None  # None: not looked yet
        self._looking: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether as many pages are open as are served."""
        return len(self._subscribers) >= MOST

    def answer(self) -> Response:
        """What an open page listens to; 503 when as many are open as are served."""
        if self.full:
            return PlainTextResponse("too many open pages", 503)
        return StreamingResponse(self.stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events: `token` at once and at each change, `away` when the record stops to answer, `here`."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._subscribers.add(queue)
        if self._token is not None:
            queue.put_nowait(self._token)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield "retry: 1000\n\n"
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        token = await queue.get()
                except TimeoutError:
                    yield "event: here\ndata:\n\n"
                    continue
                while not queue.empty():  # only the latest matters
                    token = queue.get_nowait()
                yield "event: away\ndata:\n\n" if token == AWAY else f"event: token\ndata: {json.dumps(token)}\n\n"
        finally:
            self._subscribers.discard(queue)
            if not self._subscribers and self._looking is not None:
                self._looking.cancel()
                self._looking = self._token = None

    async def _look(self) -> None:
        while True:
            try:
                token = await asyncio.to_thread(self._change_token)
            except Exception as error:  # whatever it is: a page must not say "live" when it is not
                token = AWAY
                if self._token != AWAY:
                    log.warning("record-away", exc_info=error)
            if token != self._token:
                self._token = token
                for queue in self._subscribers:
                    queue.put_nowait(token)
            await asyncio.sleep(EVERY)
