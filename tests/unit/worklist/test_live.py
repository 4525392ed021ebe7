"""News: everybody hears of a change, and one look at the record serves all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from schemas.errors import RecordError
from worker.worklist.web import live
from worker.worklist.web.live import Newsroom


class Record:
    """A record whose token is changed by hand."""

    def __init__(self) -> None:
        self.token = "1"
        self.looks = 0
        self.away = False

    def change_token(self) -> str:
        self.looks += 1
        if self.away:
            raise RecordError("away")
        return self.token


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(live, "EVERY", 0.005)
    return Record()


async def news(stream: AsyncIterator[str]) -> tuple[str, str]:
    """The next event of a stream: its kind and data."""
    async for chunk in stream:
        if chunk.startswith("event: "):
            kind, data = chunk.removesuffix("\n\n").split("\n")
            return kind.removeprefix("event: "), data.removeprefix("data:").strip()
    raise AssertionError("the stream ended")


def test_a_page_hears_the_token_at_once_and_at_each_change(record: Record) -> None:
    async def story() -> None:
        stream = Newsroom(record.change_token).stream()
        assert await news(stream) == ("token", '"1"')
        record.token = 'two\n"event: evil'
        kind, data = await news(stream)
        assert (kind, json.loads(data)) == ("token", record.token)

    asyncio.run(story())


def test_a_second_page_hears_the_token_without_another_look(record: Record) -> None:
    async def story() -> None:
        room = Newsroom(record.change_token)
        first, second = room.stream(), room.stream()
        await news(first)
        live.EVERY = 60  # type: ignore[misc]  # the fixture puts it back
        await asyncio.sleep(0.02)
        looks = record.looks
        assert await news(second) == ("token", '"1"')
        assert record.looks == looks

    asyncio.run(story())


def test_many_pages_are_served_by_one_look(record: Record) -> None:
    async def story() -> None:
        room = Newsroom(record.change_token)
        streams = [room.stream() for _ in range(50)]
        await asyncio.gather(*map(news, streams))
        record.token = "2"
        assert set(await asyncio.gather(*map(news, streams))) == {("token", '"2"')}
        assert record.looks < 50

    asyncio.run(story())


def test_nobody_looks_when_nobody_watches(record: Record) -> None:
    async def story() -> None:
        room = Newsroom(record.change_token)
        stream = room.stream()
        await news(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)
        looks = record.looks
        await asyncio.sleep(0.05)
        assert record.looks == looks
        record.token = "3"
        assert await news(room.stream()) == ("token", '"3"')

    asyncio.run(story())


def test_a_record_that_is_away_is_told_once_and_its_return_too(record: Record) -> None:
    async def story() -> None:
        stream = Newsroom(record.change_token).stream()
        await news(stream)
        record.away = True
        assert await news(stream) == ("away", "")
        record.away = False
        assert await news(stream) == ("token", '"1"')

    asyncio.run(story())


def test_a_fault_of_any_kind_is_not_passed_off_as_quiet(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ZeroDivisionError

    async def story() -> None:
        room = Newsroom(record.change_token)
        stream = room.stream()
        await news(stream)
        monkeypatch.setattr(room, "_change_token", broken)
        assert await news(stream) == ("away", "")

    asyncio.run(story())


def test_the_server_says_that_it_is_there(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.01)

    async def story() -> None:
        stream = Newsroom(record.change_token).stream()
        heard = [(await news(stream))[0] for _ in range(4)]
        assert "here" in heard
        assert heard.count("token") == 1

    asyncio.run(story())


def test_as_many_pages_as_are_served(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 2)

    async def story() -> None:
        room = Newsroom(record.change_token)
        streams = [room.stream(), room.stream()]
        await asyncio.gather(*map(news, streams))
        assert room.full
        await streams[0].aclose()  # type: ignore[attr-defined]
        assert not room.full

    asyncio.run(story())
