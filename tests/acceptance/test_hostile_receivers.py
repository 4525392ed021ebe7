"""Receivers that refuse, stall, break off and answer late, in front of each of five destinations, under load.

The record (SQLite), the couriers and the channels are the worker's own; flags come through door 2. The ten minutes, and
what it costs the healthy ones, are measured by `python -m tests.benchmarks.bench_delivery 10`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.standing import Line
from tests.acceptance.harness import until
from tests.benchmarks.bench_delivery import couriers, fresh, raise_flag
from tests.contract.record.given import Record
from tests.receivers import NAMES, Mood, Proxy, Receivers
from worker.corridor.bell import Bell
from worker.corridor.delivery import DeliveryRules
from worker.record.destinations import Destinations

HOSTILE = [mood for mood in Mood if mood is not Mood.GOOD]
RULES = DeliveryRules(pause=0.1, longest=1.0)


@pytest.fixture
def receivers(tmp_path: Path) -> Iterator[Receivers]:
    made = Receivers(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with fresh(tmp_path) as made:
        yield made


def deliveries(record: Record, studies: int) -> list[dict[str, Any]]:
    found = []
    for study in range(studies):
        results = record.worklist.results(f"1.2.3.{study}")
        assert results is not None
        found += [{**row, "study": study} for row in results["deliveries"] if row["state"] != "superseded"]
    return found


def at(words: str) -> datetime:
    return datetime.fromisoformat(words).astimezone(UTC)


def test_every_flag_is_proven_in_the_end_and_none_is_there_twice(receivers: Receivers, record: Record) -> None:
    proxies = {name: Proxy(port, delay=0.3) for name, port in receivers.start().items()}
    news, over = Bell(), threading.Event()

    def trouble() -> None:
        """Each destination has another mood, and another one each second."""
        turn = 0
        while not over.wait(1.0):
            turn += 1
            for place, proxy in enumerate(proxies.values()):
                proxy.mood = (*HOSTILE, Mood.GOOD)[(turn + place) % 5]
        for proxy in proxies.values():
            proxy.mood = Mood.GOOD

    troublemaker = threading.Thread(target=trouble)
    with couriers(record, {n: p.port for n, p in proxies.items()}, RULES, news, timeout=0.7):
        troublemaker.start()
        studies, end = 0, time.monotonic() + 15
        while time.monotonic() < end:
            raise_flag(record, studies, NAMES)
            news.ring()
            if studies:  # a second film of the study before: a more urgent revision, which must not overtake
                raise_flag(record, studies - 1, NAMES, film=2)
            studies += 1
            time.sleep(0.3)
        over.set()
        troublemaker.join(10)
        until("every flag to be delivered", lambda: not record.outbox.counts(), 60, 0.2)
    for proxy in proxies.values():
        proxy.close()

    rows = deliveries(record, studies)
    assert {row["destination"] for row in rows} == set(NAMES)
    assert all(row["state"] == "sent" and row["proven_at"] for row in rows)
    assert max(row["attempts"] for row in rows) > 1, "nothing went wrong: this proves nothing"
    held = receivers.held()
    for name in NAMES:
        sent = [row["object_id"] for row in rows if row["destination"] == name]
        assert len(set(sent)) == len(sent)
        assert set(held[name]) == set(sent), "what is proven is there, and nothing is there under two names"
        for study in range(studies):
            mine = [r for r in rows if r["destination"] == name and r["study"] == study]
            arrived = [held[name].index(r["object_id"]) for r in sorted(mine, key=lambda r: r["revision"])]
            assert arrived == sorted(arrived), "a study's flags arrive in the order in which they were decided"


@pytest.mark.parametrize("mood", [Mood.STALLS, Mood.REFUSES])
def test_one_that_fails_rests_and_the_others_have_all_of_it(receivers: Receivers, record: Record, mood: Mood) -> None:
    ports = receivers.start()
    proxy = Proxy(ports["pacs"])
    proxy.mood = mood
    standings = Destinations(record.database).standings
    with couriers(record, {**ports, "pacs": proxy.port}, RULES, Bell(), timeout=0.5):
        for study in range(8):
            raise_flag(record, study, NAMES)
        until("the others to have everything", lambda: set(record.outbox.counts()) == {"pacs"}, 60)
        assert sum(record.outbox.counts()["pacs"].values()) == 8
        until("the line to be open", lambda: standings()["pacs"].line is not Line.CLOSED, 60)
        resting = standings()["pacs"]
        assert resting.failures >= RULES.trips
        assert ":" in resting.last_error, "the fault, and the mend"
        assert {standings()[name].line for name in NAMES if name != "pacs"} == {Line.CLOSED}
        proxy.mood = Mood.GOOD
        until("the rest", lambda: not record.outbox.counts(), 60)
        until("the line to be closed", lambda: standings()["pacs"].line is Line.CLOSED, 10)
    assert len(receivers.held()["pacs"]) == 8
    proxy.close()
