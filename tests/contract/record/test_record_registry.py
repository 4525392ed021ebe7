"""The registry of models: one is live, whatever is asked at once; what was live when; who may promote what."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.card import ModelCard, model_id
from schemas.errors import RecordError
from schemas.registry import MODEL_MOVES, Check, ModelAction, ModelReader, ModelState
from tests.contract.record.given import NOW, Record, after
from tests.unit.infer.bundles import OUTPUTS, card
from worker.record.registry import Registry

PROOFS = (Check(name="openvino (CPU f32)", passed=True, words="golden probabilities within 0.0001"),)
TEST = {
    "test": {
        "films": 700,
        "binary": {"auroc": {"value": 0.8, "low": 0.75, "high": 0.85}},
        "macro_auroc": {"value": 0.8, "low": 0.75, "high": 0.85},
        "findings": {label: {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}} for label in OUTPUTS[1:]},
    }
}


def model(name: str, **fields: Any) -> ModelCard:
    """A card whose content address is its name's."""
    standard = {"files": {name: name}, "thresholds": {o: 0.5 + len(name) / 100 for o in OUTPUTS}, "metrics": TEST}
    return card(name=name, **{**standard, **fields})


LIVE, NEW, OTHER = model("live"), model("new"), model("other")
A, B, C = map(model_id, (LIVE, NEW, OTHER))


@pytest.fixture
def registry(record: Record) -> Registry:
    """One model is live."""
    registry = Registry(record.database)
    registry.first("starter", LIVE, NOW, PROOFS)
    return registry


def enter(registry: Registry, card: ModelCard = NEW, who: str = "anna", at: float = 1) -> str:
    return registry.add(card.name, card, who=who, why="", now=after(at), proofs=PROOFS).model_id


def shadow(registry: Registry, card: ModelCard = NEW, who: str = "anna", at: float = 2) -> str:
    entered = enter(registry, card, at=at)
    registry.move(entered, ModelState.SHADOW, who=who, why="to be seen", now=after(at))
    return entered


def promote(registry: Registry, model: str, instead_of: str = A, at: float = 3, **more: Any) -> Sequence[Check]:
    return registry.promote(model, instead_of=instead_of, **{"who": "anna", "why": "better", "now": after(at), **more})


def states(registry: Registry) -> dict[str, ModelState]:
    return {m.model_id: m.state for m in registry.models()}


def test_the_configured_bundle_is_the_first_and_never_again(registry: Registry) -> None:
    again = registry.first("other", OTHER, after(5))
    assert (again.model_id, again.bundle, again.state) == (A, "starter", ModelState.LIVE)
    assert states(registry) == {A: ModelState.LIVE}
    service = registry.service()
    assert service is not None and (service.live.model_id, service.shadow) == (A, None)
    assert registry.wanted() == (A, None)


def test_nothing_is_live_before_the_first(record: Record) -> None:
    registry = Registry(record.database)
    assert (registry.service(), registry.wanted(), registry.live_at(NOW)) == (None, (None, None), None)
    entered = enter(registry)
    with pytest.raises(RecordError, match="no model is live yet"):
        promote(registry, entered)


def test_what_is_kept_of_a_card_comes_back(registry: Registry) -> None:
    full = model("full", training={"films": {"train": 9}, "history": [1] * 100}, limits=("one hospital",))
    enter(registry, full)
    found = registry.find("full")
    assert found.card == replace(full, training={"films": {"train": 9}})
    assert registry.find(model_id(full)) == found


def test_a_candidate_becomes_the_shadow_and_then_live(registry: Registry) -> None:
    entered = shadow(registry)
    assert registry.wanted() == (A, B)
    passed = promote(registry, entered)
    assert passed and all(check.passed for check in passed)
    assert states(registry) == {A: ModelState.RETIRED, B: ModelState.LIVE}
    assert registry.wanted() == (B, None)
    told = [(e.model_id, e.action, e.from_state, e.to_state, e.who) for e in reversed(registry.history())]
    assert told == [
        (A, "added", "candidate", "live", "configuration"),
        (B, "added", None, "candidate", "anna"),
        (B, "moved", "candidate", "shadow", "anna"),
        (A, "moved", "live", "retired", "anna"),
        (B, "moved", "shadow", "live", "anna"),
    ]
    assert registry.history(limit=1)[0].checks == tuple(passed)
    assert [e.model_id for e in registry.history(model=A)] == [A, A]


@pytest.mark.parametrize("to", list(ModelState))
def test_no_move_but_those_of_the_table(registry: Registry, to: ModelState) -> None:
    entered = enter(registry)
    if to in MODEL_MOVES[ModelState.CANDIDATE]:
        registry.move(entered, to, who="anna", why="", now=NOW)
        assert states(registry)[entered] is to
        return
    with pytest.raises(RecordError, match="candidate"):
        registry.move(entered, to, who="anna", why="", now=NOW)
    assert states(registry)[entered] is ModelState.CANDIDATE


def test_the_live_model_is_not_simply_taken_away(registry: Registry) -> None:
    with pytest.raises(RecordError, match="when another does"):
        registry.move(A, ModelState.RETIRED, who="anna", why="", now=NOW)
    assert registry.wanted() == (A, None)


def test_one_reads_along_at_a_time(registry: Registry) -> None:
    shadow(registry)
    other = enter(registry, OTHER)
    with pytest.raises(RecordError, match="reads along already"):
        registry.move(other, ModelState.SHADOW, who="anna", why="", now=NOW)


def test_a_model_is_entered_once(registry: Registry) -> None:
    enter(registry)
    with pytest.raises(RecordError, match="already"):
        enter(registry)


def test_a_model_that_was_measured_anew_gets_its_new_card(registry: Registry) -> None:
    entered = enter(registry)
    better = replace(NEW, version="2", thresholds=dict.fromkeys(OUTPUTS, 0.3), metrics={"test": {}})
    registry.add("elsewhere", better, who="bert", why="calibrated", now=after(2), proofs=())
    found = registry.find(entered)
    assert (found.bundle, found.version, found.card, found.state) == ("elsewhere", "2", better, ModelState.CANDIDATE)
    assert registry.judge(entered, who="bert", two_people=False)[4].passed is False  # proven is what was added last
    registry.move(entered, ModelState.SHADOW, who="bert", why="", now=after(3))
    with pytest.raises(RecordError, match="what reads keeps its card"):
        enter(registry)


def test_what_is_not_there_is_said_so(registry: Registry) -> None:
    for call in (
        lambda: registry.find("nobody"),
        lambda: registry.move("nobody", ModelState.SHADOW, who="", why="", now=NOW),
        lambda: promote(registry, "nobody"),
    ):
        with pytest.raises(RecordError, match="nobody"):
            call()


def test_whoever_fails_a_check_is_not_promoted(registry: Registry) -> None:
    bad = model(
        "bad", metrics={**TEST, "test": {**TEST["test"], "macro_auroc": {"value": 0.6, "low": 0.5, "high": 0.7}}}
    )
    entered = shadow(registry, bad)
    with pytest.raises(RecordError, match="worse than chance explains"):
        promote(registry, entered)
    assert registry.wanted() == (A, entered)
    assert [c.name for c in registry.judge(entered, who="anna", two_people=False) if not c.passed] == [
        "findings together"
    ]


def test_two_people_where_two_are_asked_for(registry: Registry) -> None:
    entered = shadow(registry, who="anna")
    with pytest.raises(RecordError, match="somebody else must"):
        promote(registry, entered, two_people=True)
    promote(registry, entered, who="bert", two_people=True)
    assert registry.wanted() == (B, None)


def test_a_roll_back_undoes_the_promotion(registry: Registry) -> None:
    promote(registry, shadow(registry))
    before = registry.before()
    assert before is not None and before.model_id == A
    back = registry.roll_back(instead_of=B, who="anna", why="too many flags", now=after(9))
    assert (back.model_id, back.state) == (A, ModelState.LIVE)
    assert states(registry) == {A: ModelState.LIVE, B: ModelState.RETIRED}
    assert [e.action for e in registry.history(limit=2)] == [ModelAction.ROLLED_BACK] * 2
    # And not back again to what was just left, by a second click.
    with pytest.raises(RecordError, match="is live by now"):
        registry.roll_back(instead_of=B, who="anna", why="", now=after(9))
    with pytest.raises(RecordError, match="is the first"):
        registry.roll_back(instead_of=A, who="anna", why="", now=after(9))


def test_roll_backs_go_down_promotion_by_promotion(registry: Registry) -> None:
    promote(registry, shadow(registry))
    promote(registry, shadow(registry, OTHER), instead_of=B)
    assert registry.roll_back(instead_of=C, who="a", why="", now=NOW).model_id == B
    assert registry.roll_back(instead_of=B, who="a", why="", now=NOW).model_id == A
    assert registry.before() is None


def test_a_model_that_was_taken_up_again_can_still_be_rolled_back_to(registry: Registry) -> None:
    promote(registry, shadow(registry))
    registry.move(A, ModelState.CANDIDATE, who="anna", why="", now=NOW)
    registry.move(A, ModelState.SHADOW, who="anna", why="", now=NOW)
    registry.roll_back(instead_of=B, who="anna", why="", now=NOW)
    assert registry.wanted() == (A, None)


def test_of_two_promotions_at_once_one_happens(registry: Registry) -> None:
    entered = [shadow(registry)]
    barrier, outcomes = threading.Barrier(4), []

    def try_it() -> None:
        barrier.wait(30)
        try:
            promote(registry, entered[0])
            outcomes.append("promoted")
        except RecordError as error:
            assert "is live by now" in str(error)
            outcomes.append("refused")

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["promoted", "refused", "refused", "refused"]
    assert states(registry) == {A: ModelState.RETIRED, B: ModelState.LIVE}


def test_workers_that_start_at_once_agree_on_the_first(record: Record) -> None:
    registry = Registry(record.database)
    barrier, found = threading.Barrier(4), []

    def start(card: ModelCard) -> None:
        barrier.wait(30)
        found.append(registry.first(card.name, card, NOW).model_id)

    threads = [threading.Thread(target=start, args=(card,)) for card in (LIVE, NEW, OTHER, LIVE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and len(set(found)) == 1
    assert registry.wanted() == (found[0], None)


def test_the_database_itself_has_room_for_one_live_model(registry: Registry, record: Record) -> None:
    enter(registry)
    with pytest.raises(RecordError):
        record.database.write(lambda c: c.execute(sa.text("UPDATE models SET state = 'live'")))
    assert registry.wanted() == (A, None)


def test_what_was_live_when(registry: Registry) -> None:
    promote(registry, shadow(registry), at=100)
    registry.tell("host/1", B, ModelAction.TAKEN_UP, "", after(101))
    registry.tell("host/2", B, ModelAction.REFUSED, "golden film 3", after(102))
    registry.roll_back(instead_of=B, who="bert", why="too many flags", now=after(200))

    def live(at: float) -> tuple[str, float, float | None]:
        spell = registry.live_at(after(at))
        assert spell is not None
        until = None if spell.until is None else (spell.until - NOW) / timedelta(seconds=1)
        return spell.model.model_id, (spell.since - NOW) / timedelta(seconds=1), until

    assert registry.live_at(after(-1)) is None
    assert live(0) == live(99.9) == (A, 0, 100)
    assert live(100) == live(199) == (B, 100, 200)
    assert live(200) == live(1e6) == (A, 200, None)
    spell = registry.live_at(after(150))
    assert spell is not None and (spell.who, spell.why) == ("anna", "better")
    assert [(e.who, e.action, e.why) for e in spell.told] == [
        ("host/1", "taken up", ""),
        ("host/2", "refused", "golden film 3"),
    ]
    assert registry.live_at(after(50)).told == ()  # type: ignore[union-attr]


def test_who_reads_with_which(registry: Registry) -> None:
    reader = ModelReader(reader="host/1", model_id=A, since=NOW, shadow_id=None, fault="", dropped=0, seen_at=after(1))
    registry.report(reader)
    later = replace(reader, model_id=B, shadow_id=A, fault="x\0y", dropped=3, seen_at=after(60))
    registry.report(later)
    assert registry.readers(NOW) == [replace(later, fault="xy")]
    assert registry.readers(after(61)) == []
    registry.report(replace(reader, reader="host/2", seen_at=after(8 * 86400)))
    assert [r.reader for r in registry.readers(NOW)] == ["host/2"]


def test_a_change_is_seen_by_its_token(registry: Registry) -> None:
    tokens = [registry.change_token()]
    enter(registry)
    tokens.append(registry.change_token())
    registry.move(B, ModelState.SHADOW, who="", why="", now=NOW)
    tokens.append(registry.change_token())
    assert len(set(tokens)) == 3
