"""How destinations do, as another process sees it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from schemas.standing import Line, Standing
from tests.contract.record.given import NOW, Record, after
from worker.record.destinations import Destinations

OPEN = Standing(
    destination="pacs", line=Line.OPEN, failures=4, since=NOW, next_trial_at=after(8), last_error="nothing listens"
)


def test_the_last_word_counts(record: Record) -> None:
    door = Destinations(record.database)
    assert door.standings() == {}
    door.note(OPEN)
    assert door.standings() == {"pacs": OPEN}
    closed = Standing(destination="pacs", since=after(9))
    door.note(closed)
    door.note(Standing(destination="ris", since=NOW))
    assert door.standings() == {"pacs": closed, "ris": Standing(destination="ris", since=NOW)}


def test_whatever_a_peer_says_of_itself_can_be_kept(record: Record) -> None:
    door = Destinations(record.database)
    door.note(Standing(destination="pacs", since=NOW, last_error="a\0b\udcff"))
    assert door.standings()["pacs"].last_error == "ab?"


def test_couriers_of_several_processes_may_speak_at_once(record: Record) -> None:
    door = Destinations(record.database)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: door.note(OPEN), range(12)))
    assert door.standings() == {"pacs": OPEN}
