from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.decision import Urgency
from schemas.errors import PermanentFailure, RecordError, TransientFailure
from schemas.flag import Flag, Receipt
from schemas.identity import StudyContext
from worker.corridor.bell import Bell
from worker.corridor.delivery import Courier, DeliveryRules
from worker.record.outbox import Delivery

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
        self.done = threading.Event()
        self.faults: list[Exception] = []

    def claim(self, destination: str, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Delivery]:
        if not self.due:
            self.done.set()
            return []
        return [self.due.pop(0)]

    def sent(self, delivery: int, worker: str, receipt: Receipt, now: datetime) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.log.append(("sent", delivery))

    def refuse(self, delivery: int, worker: str, error: str, now: datetime) -> None:
        self.log.append(("refused", delivery))

    def retry(self, delivery: int, worker: str, error: str, not_before: datetime) -> None:
        self.log.append(("retry" if not_before == NOW else "set back", delivery))
        attempt = sum(1 for what, n in self.log if n == delivery) + 1
        self.due.insert(
            0 if not_before == NOW else len(self.due), Delivery(id=delivery, flag=flag("1.2"), attempt=attempt)
        )


class Scripted:
    """A channel that does what it is told, in turn; then takes everything."""

    name = "pacs"

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.closed = False
        self.sent = 0

    def send(self, flag: Flag) -> Receipt:
        if self.script:
            raise self.script.pop(0)
        self.sent += 1
        return Receipt(object_id="1.2.3", proof="C-STORE 0x0000")

    def check(self) -> str:
        return "there"

    def close(self) -> None:
        self.closed = True


def deliver(outbox: Any, channel: Scripted) -> list[tuple[str, int]]:
    courier = Courier(
        outbox=outbox,
        channel=channel,
        news=Bell(),
        owner="me",
        rules=DeliveryRules(pause=0.001, look_every=0.001, attempts=3),
        clock=lambda: NOW,
    )
    courier.start()
    assert outbox.done.wait(10)
    courier.stop()
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
