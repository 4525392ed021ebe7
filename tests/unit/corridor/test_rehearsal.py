"""A past study under another policy; and under the same one, which must give what was told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from schemas.decision import Policy, Rule, Urgency
from schemas.findings import LABELS, Label
from schemas.flag import Receipt
from schemas.not_analysed import NotAnalysed
from schemas.outcome import Audience, Read, Route
from schemas.prediction import Prediction
from tests.contract.record.given import LEASE, MODEL, NOW, Record, after, instance, not_read
from worker.corridor.rehearsal import Plan, Tally, WouldHear, compare, rehearse
from worker.decide.policy import decide, thresholds
from worker.decide.routing import recipients
from worker.decide.study import settle
from worker.record.database import Database
from worker.record.history import History, PastFilm, PastStudy

POINTS = {**dict.fromkeys(map(str, LABELS), 0.5), "binary": 0.5}
ALL = Audience(name="all", when="analysed")
RAISED = Audience(name="raised")
STAT = Audience(name="stat", urgency=Urgency.STAT)


def plan(policy: Policy | None = None, *audiences: Audience) -> Plan:
    policy = policy or Policy()
    points = thresholds(policy, POINTS)
    route: Route = partial(recipients, audiences or (ALL, RAISED, STAT))
    return Plan(policy=policy, operating_points=lambda _: points, route=route)


def prediction(**findings: float) -> Prediction:
    return Prediction(
        model_id=MODEL.id, binary=0.9, findings={label: findings.get(label.name, 0.1) for label in LABELS}
    )


def film(number: int, seen: Prediction | None, at: datetime = NOW) -> PastFilm:
    return PastFilm(
        version=number,
        instance=instance(number),
        called_ae="HILUM",
        concluded_at=at,
        prediction=seen,
        operating_points=POINTS,
        not_analysed=None if seen else NotAnalysed.LATERAL,
    )


def study(*films: PastFilm, **told: Urgency) -> PastStudy:
    return PastStudy(study_uid="1.2.3.1", modality="DX", films=films, told=told)


def test_each_destination_hears_what_it_asked_for() -> None:
    seen = study(film(1, prediction(EFFUSION=0.7)), film(2, None), film(3, prediction(PNEUMOTHORAX=0.8)))
    hears = rehearse(seen, plan())
    both = frozenset({"Effusion", "Pneumothorax"})
    assert hears == {
        "all": WouldHear(Urgency.STAT, both, 3),
        "raised": WouldHear(Urgency.STAT, both, 3),
        "stat": WouldHear(Urgency.STAT, both, 1),
    }


def test_another_threshold_another_story() -> None:
    stricter = Policy(findings={Label.PNEUMOTHORAX: Rule(urgency=Urgency.STAT, threshold=0.9)})
    seen = study(film(1, prediction(PNEUMOTHORAX=0.8)))
    assert rehearse(seen, plan(stricter, RAISED)) == {}
    assert rehearse(seen, plan(None, RAISED)) == {"raised": WouldHear(Urgency.STAT, frozenset({"Pneumothorax"}), 1)}


def test_of_a_study_of_which_nothing_was_read_nothing_is_told() -> None:
    assert rehearse(study(film(1, None), film(2, None)), plan()) == {}


def test_what_an_earlier_version_showed_is_not_unsaid() -> None:
    first, second = film(1, prediction(PNEUMOTHORAX=0.8)), film(1, prediction(EFFUSION=0.7))
    hears = rehearse(study(first, replace(second, version=2)), plan(None, RAISED))
    assert hears == {"raised": WouldHear(Urgency.STAT, frozenset({"Pneumothorax", "Effusion"}), 2)}


def test_gained_lost_and_other_are_told_apart() -> None:
    tallies: dict[str, Tally] = {}
    stat = WouldHear(Urgency.STAT, frozenset({"Mass"}), 2)
    for was, would in [(None, stat), (Urgency.STAT, None), (Urgency.URGENT, stat), (Urgency.STAT, stat), (None, None)]:
        told = {} if was is None else {"pacs": was}
        compare(tallies, study(**told), {} if would is None else {"pacs": would})
    tally = tallies["pacs"]
    assert (tally.was, tally.would, tally.gained, tally.lost, tally.other_urgency) == (3, 3, 1, 1, 1)
    assert (tally.messages, tally.urgencies, tally.findings) == (6, {Urgency.STAT: 3}, {"Mass": 3})


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    url = f"sqlite:///{tmp_path}/hilum.db"
    database = Database(url)
    database.migrate()
    yield Record(database, url)
    database.close()


def test_the_same_policy_gives_what_was_told(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Films of many kinds in any order, some of them twice, some sent anew: the rehearsal is what happened."""
    monkeypatch.setattr("worker.record.history.CHUNK", 3)
    drawn = random.Random(4)
    policy, here = Policy(), plan()
    messages: Counter[str] = Counter()
    for step in range(80):
        number, of = drawn.randrange(3), drawn.randrange(10)
        at = after(step)
        record.receive(number, of, content=f"{of}-{number}-{drawn.randrange(2)}", at=at)
        for job in record.jobs.claim("reader", 1, LEASE, at):
            seen = prediction(PNEUMOTHORAX=drawn.random(), EFFUSION=drawn.random())
            decision = decide(seen, policy, thresholds(policy, POINTS))
            outcome = not_read() if drawn.random() < 0.3 else Read(prediction=seen, decision=decision)
            record.jobs.conclude(job, "reader", outcome, settle, here.route, MODEL, at + timedelta(milliseconds=1))
            for name in ("all", "raised", "stat"):
                for delivery in record.outbox.claim(name, "courier", 9, LEASE, at + timedelta(seconds=1)):
                    record.outbox.sent(delivery.id, "courier", Receipt(object_id="1.2", proof="0x0000"), at)
                    messages[name] += 1
    tallies: dict[str, Tally] = {}
    history = History(record.database)
    everything = (after(-1), after(1000))
    studies = list(history.studies(*everything))
    assert len(studies) == history.count(*everything) == len({s.study_uid for s in studies})
    for past in studies:
        compare(tallies, past, rehearse(past, here))
    assert set(tallies) == {"all", "raised", "stat"}
    assert {name: tally.messages for name, tally in tallies.items()} == messages
    for tally in tallies.values():
        assert tally.was == tally.would > 0
        assert (tally.gained, tally.lost, tally.other_urgency) == (0, 0, 0)
