"""Policies by number: proposed, put into force once each, and which was in force when."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import Label
from schemas.policy import PolicyVersion
from tests.contract.record.given import NOW, Record, after, read
from worker.record.policies import LONGEST, Policies, PolicyOvertaken, PolicyUnknown

STRICT = Policy(
    findings={
        Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.75),
        Label.MASS: Rule(urgency=Urgency.URGENT),
        Label.NODULE: Rule(urgency=Urgency.ROUTINE, threshold=0.3),
    },
    binary=Rule(urgency=Urgency.URGENT, threshold=0.9),
    on_disagreement="hold",
    budget=6.5,
)


@pytest.fixture
def policies(record: Record) -> Policies:
    return Policies(record.database)


def propose(policies: Policies, policy: Policy = STRICT, at: float = 0) -> PolicyVersion:
    return policies.propose(policy, made_by="chief", note=" fewer alerts at night ", now=after(at))


def enact(policies: Policies, number: int, over: int, at: float = 0) -> PolicyVersion:
    return policies.enact(number, enacted_by="head", because="agreed", over=over, now=after(at))


def test_a_proposal_is_kept_whole_and_changes_nothing(policies: Policies) -> None:
    made = propose(policies)
    assert made == PolicyVersion(
        number=1,
        policy=STRICT,
        note="fewer alerts at night",
        made_by="chief",
        made_at=NOW,
        effective_at=None,
        enacted_by=None,
        enacted_because=None,
        followed=None,
    )
    assert policies.show(1) == made
    assert policies.current(after(1000)) is None


def test_what_is_enacted_is_in_force_from_then_on(policies: Policies) -> None:
    propose(policies)
    propose(policies, Policy())
    second = enact(policies, 2, over=0, at=10)
    assert (second.enacted_by, second.enacted_because, second.effective_at, second.followed) == (
        "head",
        "agreed",
        after(10),
        0,
    )
    first = enact(policies, 1, over=2, at=20)
    assert first.followed == 2
    assert policies.at(after(9.9)) is None
    assert policies.at(after(10)) == second
    assert policies.at(after(19.9)) == second
    assert policies.current(after(20)) == first
    assert [version.number for version in policies.list()] == [2, 1]
    assert policies.list(limit=1) == [second]


def test_a_policy_comes_into_force_once(policies: Policies) -> None:
    propose(policies)
    enact(policies, 1, over=0)
    with pytest.raises(PolicyOvertaken, match="propose the same again"):
        enact(policies, 1, over=1, at=5)
    assert policies.show(1).effective_at == NOW


def test_who_looked_at_an_older_policy_is_told_to_look_again(policies: Policies) -> None:
    for _ in range(2):
        propose(policies)
    enact(policies, 1, over=0)
    with pytest.raises(PolicyOvertaken, match="policy 1 came into force meanwhile, in the place of 0"):
        enact(policies, 2, over=0, at=5)
    current = policies.current(after(5))
    assert current is not None
    assert current.number == 1


def test_a_clock_that_is_behind_does_not_put_a_policy_before_its_predecessor(policies: Policies) -> None:
    for _ in range(2):
        propose(policies)
    enact(policies, 1, over=0, at=10)
    second = enact(policies, 2, over=1, at=3)
    assert second.effective_at == after(10) + timedelta(microseconds=1)


@pytest.mark.parametrize("because", ["", "  ", "x" * (LONGEST + 1)])
def test_nothing_comes_into_force_without_a_reason(policies: Policies, because: str) -> None:
    propose(policies)
    with pytest.raises(ConfigurationError, match=r"why|longer"):
        policies.enact(1, enacted_by="head", because=because, over=0, now=NOW)
    assert policies.current(after(1)) is None


def test_what_is_not_known_is_said_so(policies: Policies) -> None:
    for ask in (policies.show, lambda number: enact(policies, number, over=0)):
        with pytest.raises(PolicyUnknown, match="policy 9 is not known here"):
            ask(9)


def test_of_two_at_once_both_proposals_are_kept_and_one_is_enacted(policies: Policies) -> None:
    together = threading.Barrier(2)
    refused: list[PolicyOvertaken] = []

    def run(name: str) -> None:
        together.wait()
        made = policies.propose(STRICT, made_by=name, note="", now=NOW)
        together.wait()
        try:
            enact(policies, made.number, over=0)
        except PolicyOvertaken as error:
            refused.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {version.number for version in policies.list()} == {1, 2}
    assert len(refused) == 1
    assert sum(version.effective_at is not None for version in policies.list()) == 1


@pytest.mark.parametrize("number", [0, 3])
def test_a_film_keeps_the_number_of_the_policy_that_decided(record: Record, number: int) -> None:
    outcome = read(0.9)
    record.film(1, outcome=replace(outcome, decision=replace(outcome.decision, policy=number)))
    story = record.worklist.results("1.2.3.1")
    assert story is not None
    assert story["films"][0]["predictions"][0]["policy"] == number
