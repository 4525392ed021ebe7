from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest

from schemas.decision import Urgency
from schemas.errors import PermanentFailure, RecordError, TransientFailure
from schemas.flag import Flag, Receipt
from schemas.identity import StudyContext
from schemas.standing import Line, Standing
from tests.waiting import eventually
from worker.corridor.bell import Bell
from worker.corridor.delivery import Courier, Couriers, DeliveryRules
from worker.record.destinations import Destinations
from worker.record.outbox import Delivery, Sent

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def flag(study: str) -> Flag:
    return Flag(
        study_uid=study,
        revision=1,
        urgency=Urgency.STAT,
        reasons=(),
        films=(),
        context=StudyContext(),
        model_id="m",
        model_name="m",
        model_version="1",
        decided_at=NOW,
    )


class ListOutbox:
    """An outbox in a list: what is due is handed out in order, what happened is written down."""

    def __init__(self, *studies: str) -> None:
        self.due = [Delivery(id=n, flag=flag(s), attempt=1) for n, s in enumerate(studies)]
        self.log: list[tuple[str, int]] = []
        self.claims: list[int] = []
        self.commits = 0
        self.done = threading.Event()
        self.faults: list[Exception] = []

    def claim(self, destination: str, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Delivery]:
        taken, self.due = self.due[:limit], self.due[limit:]
        self.claims.append(len(taken))
        if not taken:
            self.done.set()
        return taken

    def settle(self, worker: str, sent: Sequence[Sent], untried: Sequence[int] = ()) -> set[int]:
        if self.faults:
            raise self.faults.pop(0)
        self.commits += 1
        self.log += [("sent", s.id) for s in sent] + [("untried", n) for n in untried]
        self.due = [Delivery(id=n, flag=flag("1.2"), attempt=1) for n in untried] + self.due
        return set()

    def refuse(self, delivery: int, worker: str, error: str, now: datetime) -> None:
        self.log.append(("refused", delivery))

    def retry(self, delivery: int, worker: str, error: str, not_before: datetime) -> None:
        self.log.append(("retry" if not_before == NOW else "set back", delivery))
        attempt = sum(1 for what, n in self.log if n == delivery and what != "untried") + 1
        self.due.insert(
            0 if not_before == NOW else len(self.due), Delivery(id=delivery, flag=flag("1.2"), attempt=attempt)
        )


class Heard:
    """What a courier says of its destination."""

    def __init__(self, *faults: Exception) -> None:
        self.standings: list[Standing] = []
        self.faults = list(faults)

    def note(self, standing: Standing) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.standings.append(standing)

    @property
    def lines(self) -> list[tuple[Line, int]]:
        return [(s.line, s.failures) for s in self.standings]


class Scripted:
    """A channel that does what it is told, in turn; then takes everything."""

    name = "pacs"

    def __init__(self, *script: Exception | Callable[[], object], proven: bool = True) -> None:
        self.script = list(script)
        self.closed = False
        self.sent = 0
        self.proven = proven

    def send(self, flag: Flag) -> Receipt:
        if self.script:
            act = self.script.pop(0)
            if isinstance(act, Exception):
                raise act
            act()
        self.sent += 1
        return Receipt(object_id="1.2.3", proof="C-STORE 0x0000", proven=self.proven)

    def check(self) -> str:
        return "there"

    def close(self) -> None:
        self.closed = True


class Stalled(Scripted):
    """A channel whose peer says nothing: `send` takes until it is closed, and `close` until it may."""

    def __init__(self, *, closes: bool = True) -> None:
        super().__init__()
        self.sending, self.let_go, self.may_close = threading.Event(), threading.Event(), threading.Event()
        if closes:
            self.may_close.set()

    def send(self, flag: Flag) -> Receipt:
        self.sending.set()
        assert self.let_go.wait(30)
        raise TransientFailure("the channel was closed")

    def close(self) -> None:
        assert self.may_close.wait(30)
        super().close()
        self.let_go.set()


def courier(
    outbox: Any, channel: Scripted, *, heard: Heard | None = None, news: Bell | None = None, **rules: Any
) -> Courier:
    return Courier(
        outbox=outbox,
        destinations=cast(Destinations, heard or Heard()),
        channel=channel,
        news=news or Bell(),
        owner="me",
        rules=DeliveryRules(**{"pause": 0.001, "look_every": 0.001, "attempts": 3, **rules}),
        clock=lambda: NOW,
    )


def deliver(outbox: Any, channel: Scripted, **more: Any) -> list[tuple[str, int]]:
    started = courier(outbox, channel, **more)
    started.start()
    assert outbox.done.wait(10)
    Couriers([started]).stop()
    assert channel.closed
    return list(outbox.log)


def test_what_is_taken_is_marked_sent() -> None:
    assert deliver(ListOutbox("1.1", "1.2"), Scripted()) == [("sent", 0), ("sent", 1)]


def test_a_record_that_is_away_is_told_when_it_is_back_and_the_flag_goes_out_once() -> None:
    outbox, channel = ListOutbox("1.1"), Scripted()
    outbox.faults = [RecordError("away"), RecordError("away")]
    assert deliver(outbox, channel) == [("sent", 0)]
    assert channel.sent == 1


def test_a_permanent_refusal_is_set_aside_and_the_next_goes_out() -> None:
    assert deliver(ListOutbox("1.1", "1.2"), Scripted(PermanentFailure("no"))) == [("refused", 0), ("sent", 1)]


def test_a_passing_fault_rests_the_destination_and_keeps_the_order() -> None:
    log = deliver(ListOutbox("1.1", "1.2"), Scripted(TransientFailure("away"), TransientFailure("away")))
    assert log == [("retry", 0), ("retry", 0), ("sent", 0), ("sent", 1)]


def test_a_fault_of_ours_never_holds_up_the_flags_behind_it() -> None:
    log = deliver(ListOutbox("1.1", "1.2"), Scripted(ValueError("bug")))
    assert log == [("set back", 0), ("sent", 1), ("sent", 0)]


def test_a_flag_that_always_fails_by_a_fault_of_ours_ends_before_a_person() -> None:
    log = deliver(ListOutbox("1.1"), Scripted(*[ValueError("bug")] * 9))
    assert log == [("set back", 0), ("set back", 0), ("refused", 0)]


def test_flags_that_go_through_quickly_share_a_commit() -> None:
    outbox = ListOutbox(*map(str, range(40)))
    assert deliver(outbox, Scripted()) == [("sent", n) for n in range(40)]
    assert outbox.claims[:4] == [1, 16, 16, 7], "the first tells how quick the destination is"
    assert outbox.commits == 4


def test_of_a_slow_destination_one_is_in_hand_at_a_time() -> None:
    outbox = ListOutbox(*"1234")
    slow = [partial(time.sleep, 0.03)] * 4
    assert deliver(outbox, Scripted(*slow), ahead=0.02) == [("sent", n) for n in range(4)]
    assert outbox.claims[:4] == [1, 1, 1, 1]


def test_one_that_becomes_slow_is_given_no_more_and_what_waits_goes_back_untried() -> None:
    outbox = ListOutbox(*"1234")
    log = deliver(outbox, Scripted(lambda: None, partial(time.sleep, 0.05)), ahead=0.03)
    assert log == [("sent", 0), ("sent", 1), ("untried", 2), ("untried", 3), ("sent", 2), ("sent", 3)]


def test_news_may_be_more_urgent_than_what_is_in_hand() -> None:
    news = Bell()
    log = deliver(ListOutbox(*"1234"), Scripted(lambda: None, news.ring), news=news)
    assert log[:4] == [("sent", 0), ("sent", 1), ("untried", 2), ("untried", 3)]


def test_a_failure_in_the_middle_notes_what_went_before_and_gives_back_what_comes_after() -> None:
    log = deliver(ListOutbox(*"1234"), Scripted(lambda: None, lambda: None, TransientFailure("away")))
    assert log[:4] == [("sent", 0), ("retry", 2), ("sent", 1), ("untried", 3)]
    assert sorted(n for what, n in log if what == "sent") == [0, 1, 2, 3]


def test_what_is_not_proven_yet_is_noted_before_anything_else_is_sent() -> None:
    outbox = ListOutbox(*"12345")
    deliver(outbox, Scripted(proven=False))
    assert outbox.commits == 5


def test_failures_in_a_row_open_the_line_and_a_trial_closes_it() -> None:
    heard = Heard()
    away = [TransientFailure(f"away {n}") for n in range(4)]
    deliver(ListOutbox("1"), Scripted(*away), heard=heard)
    assert heard.lines == [
        *((Line.CLOSED, 0), (Line.CLOSED, 1), (Line.CLOSED, 1), (Line.CLOSED, 2), (Line.CLOSED, 2)),
        *((Line.OPEN, 3), (Line.HALF_OPEN, 3), (Line.OPEN, 4), (Line.HALF_OPEN, 4), (Line.CLOSED, 0)),
    ]
    resting = heard.standings[5]
    assert (resting.last_error, resting.since) == ("away 2", NOW)
    assert resting.next_trial_at is not None
    assert resting.next_trial_at > NOW
    assert heard.standings[-1].last_error == ""


def test_after_a_rest_one_flag_is_tried() -> None:
    outbox = ListOutbox(*map(str, range(9)))
    deliver(outbox, Scripted(lambda: None, TransientFailure("away")))
    assert outbox.claims[:4] == [1, 8, 1, 7]


def test_a_refusal_for_good_shows_that_somebody_is_there() -> None:
    heard = Heard()
    deliver(ListOutbox("1"), Scripted(TransientFailure("away"), PermanentFailure("no")), heard=heard)
    assert heard.lines[-1] == (Line.CLOSED, 0)


def test_a_courier_that_cannot_say_how_it_does_delivers_all_the_same() -> None:
    heard = Heard(RecordError("away"))
    assert deliver(ListOutbox("1"), Scripted(), heard=heard) == [("sent", 0)]
    assert heard.lines == [(Line.CLOSED, 0)]


def stop_stalled(*channels: Stalled) -> tuple[list[ListOutbox], list[Heard], float]:
    """Couriers in the middle of a send, stopped; their records, and the seconds that it took."""
    outboxes, said = [ListOutbox("1", "2") for _ in channels], [Heard() for _ in channels]
    couriers = Couriers([courier(o, c, heard=h) for o, c, h in zip(outboxes, channels, said, strict=True)])
    couriers.start()
    for channel in channels:
        assert channel.sending.wait(10)
    began = time.monotonic()
    couriers.stop(0.5)
    return outboxes, said, time.monotonic() - began


def test_however_many_destinations_stall_a_stop_waits_once() -> None:
    channels = [Stalled() for _ in range(6)]
    outboxes, _, took = stop_stalled(*channels)
    assert 0.4 < took < 1.5
    assert all(channel.closed for channel in channels)
    assert [outbox.log for outbox in outboxes] == [[("retry", 0)]] * 6, "it may have arrived"


def test_a_channel_that_does_not_close_holds_up_neither_the_stop_nor_the_others() -> None:
    stubborn, other = Stalled(closes=False), Stalled()
    outboxes, _, took = stop_stalled(stubborn, other)
    assert took < 3
    assert (stubborn.closed, other.closed) == (False, True)
    assert [outbox.log for outbox in outboxes] == [[], [("retry", 0)]]
    stubborn.may_close.set()
    eventually(lambda: outboxes[0].log, 10, "what was in hand to be noted, late as it is")


def test_that_we_were_stopped_is_no_failure_of_the_destination(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hilum.delivery"):
        _, (heard,), _ = stop_stalled(Stalled())
    assert heard.lines == [(Line.CLOSED, 0)]
    assert "cut-off destination=pacs" in caplog.text
    assert max(record.levelno for record in caplog.records) == logging.INFO


def test_what_the_destination_itself_fails_at_while_we_stop_is_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    outbox, heard, news, sending = ListOutbox("1"), Heard(), Bell(), threading.Event()

    def fail() -> None:
        sending.set()
        news.wait(0, 10)  # a stop rings
        raise TransientFailure("away")

    leaving = courier(outbox, Scripted(fail), heard=heard, news=news)
    leaving.start()
    assert sending.wait(10)
    Couriers([leaving]).stop()
    assert outbox.log == [("retry", 0)]
    assert heard.lines[-1] == (Line.CLOSED, 1)
    assert "resting destination=pacs" in caplog.text


def test_what_is_in_hand_is_finished_before_the_channel_is_closed() -> None:
    outbox, channel, sending, closed = ListOutbox("1"), Scripted(), threading.Event(), []

    def slowly() -> None:
        sending.set()
        time.sleep(0.2)
        closed.append(channel.closed)

    channel.script.append(slowly)
    leaving = courier(outbox, channel)
    leaving.start()
    assert sending.wait(10)
    Couriers([leaving]).stop()
    assert (outbox.log, closed) == ([("sent", 0)], [False])
