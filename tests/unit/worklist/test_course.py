"""From what a trainer told to words, a bar, steps and curves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.training_run import Curve, Progress, RunState, TrainingRun
from worker.worklist.web.course import course, groups, lasting, plan
from worker.worklist.web.curves import HEIGHT, WIDTH, charts

NOW = datetime(2026, 3, 14, 22, 10, tzinfo=UTC)
PLAN = """
[[multilabel]]
name = "a"
epochs = 3
[[multilabel]]
name = "b"
epochs = 1
[[binary]]
name = "a"
epochs = 4
"""
RUN = TrainingRun(
    id=1,
    name="mine",
    state=RunState.RUNNING,
    preset="quick",
    description=PLAN,
    data="/films",
    folder="/runs/1",
    requested_by="anna",
    requested_at=NOW,
    started_at=NOW,
    finished_at=None,
    attempts=1,
    trainer="gpu/1",
    lease_until=NOW + timedelta(minutes=1),
    cancel_asked=False,
    progress=Progress(),
    result=None,
    error="",
)


def of(**progress: object) -> TrainingRun:
    return replace(RUN, progress=Progress(**progress))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        ({}, 0.0),
        ({"task": "cache"}, 0.0),
        ({"task": "multilabel"}, 0.0),
        ({"task": "multilabel", "stage": "a", "step": 10, "steps": 30}, 1 / 8),
        ({"task": "multilabel", "stage": "b", "step": 5, "steps": 10}, 3.5 / 8),
        ({"task": "binary"}, 4 / 8),
        ({"task": "binary", "stage": "a", "step": 99, "steps": 10}, 8 / 8),
        ({"task": "evaluate"}, 1.0),
        ({"task": "binary", "stage": "of another plan", "step": 1, "steps": 2}, None),
    ],
)
def test_the_bar_is_of_all_epochs(progress: dict[str, object], share: float | None) -> None:
    assert course(of(**progress), NOW).share == (None if share is None else pytest.approx(share))


def test_without_a_plan_the_bar_is_of_the_stage() -> None:
    run = replace(of(task="multilabel", stage="a", step=10, steps=40), description="")
    assert course(run, NOW).share == 0.25
    assert course(replace(run, progress=Progress()), NOW).share is None


def test_steps_follow_the_flow() -> None:
    def now(**progress: object) -> list[str]:
        return [name for name, how in course(of(**progress), NOW).steps if how == "now"]

    assert now() == []
    assert now(task="split") == ["split"]
    assert now(task="fit") == now(task="multilabel") == ["multilabel"]
    assert now(task="binary", stage="a") == ["binary"]
    alone = replace(of(task="fit"), description='[[binary]]\nname = "a"\n')
    assert [n for n, how in course(alone, NOW).steps if how != "later"] == ["index", "split", "cache", "binary"]
    done = course(replace(of(task="done"), state=RunState.DONE), NOW)
    assert {how for _, how in done.steps} == {"done"}
    failed = course(replace(of(task="cache"), state=RunState.FAILED), NOW)
    assert "now" not in {how for _, how in failed.steps}


def test_a_silent_trainer_is_noticed_only_while_it_should_speak() -> None:
    late = NOW + timedelta(minutes=5)
    assert course(RUN, late).silent
    assert not course(RUN, NOW).silent
    assert not course(replace(RUN, state=RunState.DONE), late).silent


def test_hostile_descriptions_are_no_plan() -> None:
    for text in ("", "seed = ", 'multilabel = 3\nbinary = ["x"]', "[[multilabel]]\nepochs = []", "model = 1"):
        assert plan(text) == []
        assert groups(text) == {}
    assert plan("[[binary]]\nepochs = -5\n") == [("binary", "", 1)]
    assert groups('[model.groups]\na = ["x", "y"]\nb = 5\n') == {"a": ["x", "y"]}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40"), (90_000, "25 h 00")],
)
def test_how_long(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def epochs(*losses: object) -> tuple[dict[str, object], ...]:
    return tuple({"epoch": n, "loss": loss, "auroc": 0.6} for n, loss in enumerate(losses, 1))


def test_a_curve_grows_into_the_room_of_its_plan() -> None:
    planned = plan(PLAN)
    short = charts([Curve(task="multilabel", stage="a", epochs=epochs(0.9))], planned)[0]
    long = charts(
        [
            Curve(task="multilabel", stage="a", epochs=epochs(0.9, 0.8, 0.7)),
            Curve(task="multilabel", stage="b", epochs=epochs(0.5)),
            Curve(task="binary", stage="a"),
        ],
        planned,
    )
    assert [(c.task, c.figure) for c in long] == [("multilabel", "loss"), ("multilabel", "AUROC on validation films")]
    assert short.dots[0][0] == long[0].dots[0][0]  # what was drawn stays where it was
    assert [x for x, _ in long[0].dots] == sorted({x for x, _ in long[0].dots})
    assert long[0].dots[-1][0] == max(x for x, _ in long[0].epochs)
    heights = [y for _, y in long[0].dots]
    assert heights == sorted(heights)  # the loss falls: further down the screen
    assert [name for _, name in long[0].stages] == ["a", "b"]


@pytest.mark.parametrize(
    "losses",
    [
        (0.5,),
        (0.0,),
        (-3.0,),
        (1e9, 1e-9),
        (0.5, 0.5),
        (None, 0.4, "x"),
        (0.500001, 0.5000001),
        tuple(range(300, 0, -1)),
    ],
)
def test_every_curve_stays_in_its_frame(losses: tuple[object, ...]) -> None:
    for chart in charts([Curve(task="binary", stage="a", epochs=epochs(*losses))], []):
        points = [*chart.dots, *((x, 0.0) for x, _ in chart.epochs), *((0.0, y) for y, _ in chart.heights)]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
        words = [word for _, word in chart.heights]
        assert len(words) == len(set(words)) <= 8
        assert len(chart.epochs) <= 11


def test_nothing_is_drawn_of_nothing() -> None:
    assert charts([], plan(PLAN)) == []
    assert charts([Curve(task="binary", stage="a", epochs=({"loss": None, "auroc": None},))], []) == []
