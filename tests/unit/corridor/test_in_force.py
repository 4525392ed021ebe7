"""The policy that films are decided by: followed within a second, kept while the record is away, never guessed."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError, RecordError
from schemas.findings import FINDINGS, Label
from schemas.policy import PolicyVersion
from tests.contract.record.given import NOW
from worker.corridor.in_force import PolicyWatch

CARD = {**{str(f): 0.5 for f in FINDINGS}, "binary": 0.5}
STRICT = Policy(findings={Label.MASS: Rule(urgency=Urgency.STAT, threshold=0.9)})


class Enacted:
    """A record of policies that answers by hand."""

    def __init__(self) -> None:
        self.number, self.away, self.looks = 0, False, 0
        self.open = threading.Event()
        self.open.set()

    def current(self, now: datetime) -> PolicyVersion | None:
        assert self.open.wait(10)
        self.looks += 1
        if self.away:
            raise RecordError("away")
        if not self.number:
            return None
        return PolicyVersion(
            number=self.number,
            policy=STRICT,
            note="",
            made_by="",
            made_at=now,
            effective_at=now,
            enacted_by="",
            enacted_because="",
            followed=0,
        )


def watch(record: Enacted, every: float = 0.0) -> PolicyWatch:
    return PolicyWatch(record, Policy(), lambda: NOW, every=every)  # type: ignore[arg-type]


def test_what_is_enacted_is_followed_and_the_card_gives_what_the_policy_does_not() -> None:
    record = Enacted()
    watched = watch(record)
    before = watched.in_force(CARD)
    assert (before.number, before.policy) == (0, Policy())
    record.number = 3
    after = watched.in_force({**CARD, "Nodule": 0.7})
    assert (after.number, after.policy) == (3, STRICT)
    assert (after.operating_points["Mass"], after.operating_points["Nodule"]) == (0.9, 0.7)


def test_the_record_is_not_asked_for_each_film() -> None:
    record = Enacted()
    watched = watch(record, every=60.0)
    for _ in range(100):
        watched.in_force(CARD)
    assert record.looks == 1


def test_while_the_record_is_away_the_policy_that_was_known_stays() -> None:
    record = Enacted()
    record.number = 3
    watched = watch(record)
    watched.in_force(CARD)
    record.away = True
    assert watched.in_force(CARD).number == 3
    record.away, record.number = False, 4
    assert watched.in_force(CARD).number == 4


def test_nothing_is_decided_before_it_is_known_which_policy_is_in_force() -> None:
    record = Enacted()
    record.away, record.number = True, 3
    watched = watch(record)
    with pytest.raises(RecordError):
        watched.in_force(CARD)
    record.away = False
    record.open.clear()
    numbers: list[int] = []
    readers = [threading.Thread(target=lambda: numbers.append(watched.in_force(CARD).number)) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert numbers == []
    record.open.set()
    for reader in readers:
        reader.join(10)
    assert numbers == [3, 3, 3]


def test_a_look_that_takes_long_holds_up_nobody_else() -> None:
    record = Enacted()
    watched = watch(record)
    watched.in_force(CARD)
    record.open.clear()
    slow = threading.Thread(target=watched.in_force, args=(CARD,))
    slow.start()
    while not watched._looking.locked():
        pass
    assert watched.in_force(CARD).number == 0
    record.open.set()
    slow.join(10)


def test_an_operating_point_that_nobody_knows_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match="Mass"):
        watch(Enacted()).in_force({k: v for k, v in CARD.items() if k != "Mass"})
