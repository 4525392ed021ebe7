"""What is overtaken is not sent any more; what takes a flag back always reaches whoever may have it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from schemas.decision import Urgency
from schemas.flag import Receipt, Withdrawal
from schemas.outcome import News
from tests.contract.record.given import PACS, RIS, Record, after, read
from tests.contract.record.test_record_withdraw import EVERYBODY, ROUTE, STUDY, deliver, states, withdraw
from worker.decide.routing import recipients
from worker.record.outbox import Delivery, Sent
from worker.record.studies import one


def claim(record: Record, destination: str = "pacs", limit: int = 9, seconds: float = 1) -> list[Delivery]:
    return record.outbox.claim(destination, "courier", limit, after(60) - after(0), after(seconds))


def test_a_courier_that_claims_while_the_flag_is_withdrawn_sends_nothing_that_is_not_taken_back(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    decides, go_on = threading.Event(), threading.Event()

    def route(news: News, told: Collection[str]) -> Sequence[str]:
        decides.set()
        assert go_on.wait(30)
        return recipients(EVERYBODY, news, told)

    with ThreadPoolExecutor(2) as pool:
        withdrawal = pool.submit(record.studies.withdraw, one(STUDY), Withdrawal.PERSON, route, after(60))
        assert decides.wait(30)
        claimed = pool.submit(claim, record)
        threading.Event().wait(0.5)
        go_on.set()
        assert withdrawal.result(30) == 1
        sends = [delivery.flag.revision for delivery in claimed.result(30)]
    assert not sends or ("pacs", 2, "pending") in states(record)


def test_a_withdrawal_that_waits_is_sent_though_the_study_is_reported(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    deliver(record, "pacs")
    withdraw(record, Withdrawal.PATIENT, 10)
    withdraw(record, Withdrawal.REPORTED, 20)
    assert ("pacs", 2, "pending") in states(record)
    assert record.deliver("pacs", after(21)).flag.withdrawn is Withdrawal.PATIENT


def test_a_withdrawal_that_waits_is_sent_before_the_study_is_raised_again(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    deliver(record, "pacs")
    withdraw(record, seconds=10)
    record.film(2, outcome=read(0.8), audiences=EVERYBODY, at=after(20))
    assert [claim(record, seconds=30)[0].flag.revision] == [2]


def test_what_was_tried_is_not_sent_any_more_once_the_study_is_reported(record: Record) -> None:
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    for name in ("pacs", "tasks"):
        record.outbox.retry(record.deliver(name, after(1)).id, "courier", "away", after(2))
    withdraw(record, Withdrawal.REPORTED)
    assert states(record) == [
        ("pacs", 1, "superseded"),
        ("ris", 1, "superseded"),
        ("tasks", 1, "superseded"),
        ("tasks", 2, "pending"),  # the task may be there
    ]


def test_what_is_in_hand_when_the_study_is_reported_is_not_tried_again(record: Record) -> None:
    for study in (1, 2, 3):
        record.film(1, study, read(0.9), audiences=EVERYBODY)
    first, second, third = claim(record)
    for study in (1, 2, 3):
        record.studies.withdraw(one(f"1.2.3.{study}"), Withdrawal.REPORTED, ROUTE, after(5))
    record.outbox.retry(first.id, "courier", "away", after(6))
    record.outbox.settle("courier", [], [second.id])
    assert record.outbox.rescue(after(999)) == 1
    assert claim(record, seconds=1000) == []
    assert third.flag.revision == 1


def test_what_goes_back_untried_after_a_withdrawal_is_sent_no_more_nor_is_its_withdrawal(record: Record) -> None:
    record.film(1, 1, read(0.9), audiences=EVERYBODY)
    record.film(1, 2, read(0.9), audiences=EVERYBODY)
    sent, untried = claim(record)
    for study in (1, 2):
        record.studies.withdraw(one(f"1.2.3.{study}"), Withdrawal.PERSON, ROUTE, after(5))
    receipt = Receipt(object_id="1.1", proof="ok")
    record.outbox.settle("courier", [Sent(id=sent.id, receipt=receipt, at=after(6))], [untried.id])
    (withdrawal,) = claim(record, seconds=7)
    assert (withdrawal.flag.study_uid, withdrawal.flag.revision) == (sent.flag.study_uid, 2)


def test_who_refused_a_replay_hears_of_the_withdrawal_with_its_predecessor(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    deliver(record, "pacs")
    assert record.outbox.replay(destination="pacs") == 1
    record.outbox.refuse(record.deliver("pacs", after(2)).id, "courier", "disk full: mend it", after(2))
    withdraw(record)
    flag = record.deliver("pacs", after(61)).flag
    assert (flag.withdrawn, flag.predecessor, flag.predecessor_object_id) == (Withdrawal.PERSON, 1, "1.pacs")


def test_a_late_film_does_not_let_a_flag_out_that_the_report_overtook(record: Record) -> None:
    """It hung at its destination when the report came; then a film put the study back on the list."""
    record.film(1, outcome=read(0.9), audiences=EVERYBODY)
    hanging = record.deliver("ris", after(1))
    withdraw(record, Withdrawal.REPORTED, 10)
    record.receive(2, at=after(20))
    record.outbox.retry(hanging.id, "courier", "no answer", after(61))
    assert claim(record, "ris", seconds=62) == []


def test_who_may_have_got_it_before_it_was_refused_hears_of_the_withdrawal(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    record.outbox.retry(record.deliver("pacs", after(1)).id, "courier", "no answer", after(2))
    record.outbox.refuse(record.deliver("pacs", after(3)).id, "courier", "401: mend it", after(3))
    withdraw(record)
    assert record.deliver("pacs", after(61)).flag.withdrawn is Withdrawal.PERSON


def test_a_flag_does_not_wait_behind_its_own_less_urgent_predecessor(record: Record) -> None:
    record.film(1, 1, read(0.1))
    record.outbox.retry(record.deliver("pacs", after(1)).id, "courier", "away", after(2))
    record.film(1, 2, read(0.7, Urgency.URGENT), at=after(3))
    record.film(2, 1, read(0.9, Urgency.STAT), at=after(4))
    assert record.deliver("pacs", after(5)).flag.study_uid == "1.2.3.1"


def test_a_flag_that_costs_its_senders_is_set_aside_and_a_failure_between_counts_anew(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    for moment in range(3):
        claim(record, seconds=100 * moment + 1)
        assert record.outbox.rescue(after(100 * moment + 90), max_deaths=4) == 1
    record.outbox.retry(claim(record, seconds=400)[0].id, "courier", "away", after(400))
    for moment in range(4):
        assert claim(record, seconds=100 * moment + 500)
        assert record.outbox.rescue(after(100 * moment + 590), max_deaths=4) == 1
    assert claim(record, seconds=2000) == []
    (refused,) = record.outbox.refusals(9)
    assert "4 senders were lost" in refused.words
    assert record.outbox.replay() == 1
    assert claim(record, seconds=2001)


def test_a_replay_lets_go_of_what_was_refused_and_is_not_wanted_any_more(record: Record) -> None:
    record.film(1, 1, read(0.9), audiences=(RIS,))
    record.film(1, 2, read(0.9), audiences=(RIS,))
    for delivery in claim(record, "ris"):
        record.outbox.refuse(delivery.id, "courier", "no", after(1))
    record.studies.withdraw(one(STUDY), Withdrawal.PERSON, partial(recipients, (RIS,)), after(5))
    assert sum(r.flags for r in record.outbox.refusals(9)) == 2, "shown until somebody has mended it"
    assert [o.flags for o in record.outbox.overdue(after(9))] == [1], "nobody waits for the withdrawn one"
    assert record.outbox.replay(destination="ris") == 1
    assert record.outbox.refusals(9) == []


def test_what_waits_and_what_was_refused_are_late_each_for_itself(record: Record) -> None:
    record.film(1, 1, read(0.9))
    record.outbox.refuse(record.deliver().id, "courier", "no", after(1))
    record.film(1, 2, read(0.9), at=after(2))
    waits, refused = record.outbox.overdue(after(9))
    assert (waits.refused, waits.flags, waits.last_error) == (False, 1, "")
    assert (refused.refused, refused.flags, refused.last_error) == (True, 1, "no")


def test_a_film_of_before_the_report_raises_nothing_whenever_it_is_read(record: Record) -> None:
    record.receive(1)
    record.receive(2)
    withdraw(record, Withdrawal.REPORTED, 10)
    record.receive(3, at=after(20))
    for film, outcome in ((1, read(0.9)), (2, read(0.9)), (3, read(0.1))):
        assert record.conclude(record.claim(at=after(30)), outcome, at=after(30)).urgency is Urgency.ROUTINE, film
    assert record.film(4, outcome=read(0.9), at=after(40)).urgency is Urgency.STAT


def test_a_tried_flag_that_was_overtaken_by_the_report_is_followed_up_when_the_study_is_raised_again(
    record: Record,
) -> None:
    pacs = replace(PACS, when="flagged", findings=frozenset({"Pneumothorax"}))
    record.film(1, outcome=read(0.9), audiences=(pacs,))
    record.outbox.retry(record.deliver("pacs", after(1)).id, "courier", "away", after(2))
    record.studies.withdraw(one(STUDY), Withdrawal.REPORTED, partial(recipients, (pacs,)), after(5))
    record.film(2, outcome=read(0.7, Urgency.ROUTINE), audiences=(pacs,), at=after(20))
    assert [d.flag.revision for d in claim(record, seconds=30)] == [3], (
        "it may have the first, and hears how it goes on"
    )


def test_a_replay_changes_nothing_of_when_the_flag_was_first_proven(record: Record) -> None:
    record.film(1, outcome=read(0.9))
    deliver(record, "pacs", 1)
    assert record.outbox.replay() == 1
    deliver(record, "pacs", 900)
    story = record.worklist.results(STUDY)
    assert story is not None
    (row,) = story["deliveries"]
    assert (row["sent_at"], row["proven_at"]) == (after(1).isoformat(), after(1).isoformat())
