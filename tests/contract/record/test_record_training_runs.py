"""Training runs by both of their doors: the worker asks and looks (`worker.record`), trainers act (`training`)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, LeaseLost, RecordError
from schemas.training_run import ATTEMPTS, FINISHED, RUN_MOVES, Curve, Progress, RunState, before
from tests.contract.record.given import NOW, Record, after
from training.runs import Claimed, Runs
from worker.record.training_runs import TrainingRuns

LEASE = timedelta(seconds=60)


@pytest.fixture
def runs(record: Record) -> TrainingRuns:
    return TrainingRuns(record.database)


@pytest.fixture
def queue(url: str) -> Iterator[Runs]:
    queue = Runs(url)
    queue.check()
    yield queue
    queue.close()


def request(runs: TrainingRuns, name: str = "quick", at: float = 0.0) -> int:
    return runs.request(name=name, preset="quick", data="/films", requested_by="anna", now=after(at))


def claim(queue: Runs, trainer: str = "t1", at: float = 0.0) -> Claimed:
    claimed = queue.claim(trainer, LEASE, after(at))
    assert claimed is not None
    return claimed


def test_a_run_from_request_to_bundle(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    asked = runs.show(number)
    assert (asked.state, asked.preset, asked.requested_by, asked.progress) == ("requested", "quick", "anna", Progress())
    assert (asked.started_at, asked.result, asked.trainer) == (None, None, "")
    claimed = claim(queue, at=5)
    assert (claimed.id, claimed.attempt, claimed.preset, claimed.data) == (number, 1, "quick", "/films")
    queue.describe(claimed, folder="/runs/1", description='name = "quick"')
    progress = Progress(task="fit", stage="128 px", epoch=2, loss=0.5, auroc=0.7, history=({"epoch": 1, "loss": 0.6},))
    queue.progress(claimed, progress, LEASE, after(6))
    seen = runs.show(number)
    assert (seen.state, seen.progress, seen.trainer, seen.lease_until) == ("running", progress, "t1", after(66))
    assert (seen.folder, seen.description, seen.started_at) == ("/runs/1", 'name = "quick"', after(5))
    queue.finish(claimed, {"bundle": "/runs/1/bundle", "macro": {"value": 0.8}}, after(9))
    done = runs.show(number)
    assert (done.state, done.result, done.finished_at) == (
        "done",
        {"bundle": "/runs/1/bundle", "macro": {"value": 0.8}},
        after(9),
    )
    assert (done.trainer, done.lease_until) == ("", None)
    assert queue.claim("t1", LEASE, after(10)) is None


def test_the_one_requested_first_is_taken_first_and_the_list_begins_with_the_last(
    runs: TrainingRuns, queue: Runs
) -> None:
    numbers = [request(runs, name, at) for name, at in (("late", 9), ("early", 1), ("middle", 5))]
    assert [claim(queue).name for _ in numbers] == ["early", "middle", "late"]
    assert [run.id for run in runs.list(2)] == [numbers[2], numbers[1]]


def test_moves_are_those_of_the_table(runs: TrainingRuns, queue: Runs) -> None:
    """Every way out of a finished state but `resume` is refused, and nothing is changed by the attempt."""
    ends = {
        RunState.DONE: lambda c: queue.finish(c, {}, NOW),
        RunState.FAILED: lambda c: queue.fail(c, "no films", NOW),
        RunState.CANCELLED: lambda c: queue.cancelled(c, NOW),
    }
    assert set(ends) == FINISHED == {s for s in RunState if RUN_MOVES[s] <= {RunState.REQUESTED}}
    for state, end in ends.items():
        number = request(runs)
        claimed = claim(queue)
        end(claimed)
        for again in (*ends.values(), queue.give_back, lambda c: queue.alive(c, LEASE, NOW), queue.cancel_asked):
            with pytest.raises(LeaseLost):
                again(claimed)
        with pytest.raises(RecordError, match=f"is {state}: there is nothing to cancel"):
            runs.ask_to_cancel(number, NOW)
        assert runs.show(number).state is state
        if RunState.REQUESTED in RUN_MOVES[state]:
            runs.resume(number, NOW)
            assert claim(queue).id == number
            with pytest.raises(RecordError, match="is running: only failed and cancelled"):
                runs.resume(number, NOW)
        else:
            with pytest.raises(RecordError, match="is done: only failed and cancelled"):
                runs.resume(number, NOW)
    assert before(RunState.RUNNING) == (RunState.REQUESTED,)


def test_cancel_before_and_while_it_runs(runs: TrainingRuns, queue: Runs) -> None:
    waiting, running = request(runs, at=1), request(runs, at=0)
    claimed = claim(queue)
    assert claimed.id == running
    assert runs.ask_to_cancel(waiting, NOW) is RunState.CANCELLED
    assert queue.claim("t1", LEASE, NOW) is None
    assert not queue.cancel_asked(claimed)
    assert runs.ask_to_cancel(running, NOW) is RunState.RUNNING
    assert runs.ask_to_cancel(running, NOW) is RunState.RUNNING
    assert queue.cancel_asked(claimed)
    queue.cancelled(claimed, after(3))
    assert runs.show(running).state is RunState.CANCELLED
    runs.resume(running, after(4))
    assert not queue.cancel_asked(claim(queue))


def test_a_trainer_that_died_gives_its_run_back_thrice_and_no_more(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    for attempt in range(1, ATTEMPTS + 1):
        at = attempt * 100.0
        claimed = claim(queue, f"t{attempt}", at)
        assert claimed.attempt == attempt
        assert queue.rescue(after(at + 59)) == 0
        queue.alive(claimed, LEASE, after(at + 30))
        assert queue.rescue(after(at + 61)) == 0
        assert queue.rescue(after(at + 91)) == 1
        with pytest.raises(LeaseLost):
            queue.progress(claimed, Progress(task="late"), LEASE, after(at + 92))
    failed = runs.show(number)
    assert (failed.state, failed.attempts) == (RunState.FAILED, ATTEMPTS)
    assert "its process died" in failed.error
    assert failed.finished_at == after(391)
    runs.resume(number, NOW)
    assert claim(queue).attempt == 1


def test_a_dead_trainers_run_that_was_to_be_cancelled_is(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    claim(queue)
    runs.ask_to_cancel(number, NOW)
    assert queue.rescue(after(61)) == 1
    assert runs.show(number).state is RunState.CANCELLED


def test_an_attempt_that_was_given_back_does_not_count(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    for _ in range(ATTEMPTS + 2):
        claimed = claim(queue)
        assert claimed.attempt == 1
        queue.give_back(claimed)
    assert runs.show(number).state is RunState.REQUESTED


def test_a_second_claim_by_the_same_trainer_is_another(runs: TrainingRuns, queue: Runs) -> None:
    """A trainer that was held up past its lease, and has since taken the run again, is not confused by its former."""
    request(runs)
    former = claim(queue)
    queue.rescue(after(61))
    claim(queue, at=62)
    with pytest.raises(LeaseLost):
        queue.fail(former, "late", after(63))


def test_hostile_words_are_stored_and_harmless(runs: TrainingRuns, queue: Runs) -> None:
    number = runs.request(name="a", preset="p", data="/fil\0ms", requested_by="an\0na\ud800", now=NOW)
    claimed = claim(queue)
    strange = {"loss": float("nan"), "note": "x\0y", "deep": {"a": 1}}
    raw = {
        "task": "fi\0t\x1b[2J\ud800",
        "stage": ["no", "text"],
        "epoch": float("nan"),
        "loss": float("inf"),
        "auroc": "high",
        "films_per_second": 10**400,
        "history": [
            {"loss": float("nan"), "note": "x\0y", "deep": {"a": 1}},
            "no entry",
            *({"n": n} for n in range(9000)),
        ],
    }
    queue.progress(claimed, Progress.of(raw), LEASE, NOW)
    seen = runs.show(number)
    assert seen.progress.task == "fi t [2J"
    assert (seen.progress.stage, seen.progress.epoch, seen.progress.loss, seen.progress.auroc) == ("", None, None, None)
    assert len(seen.progress.history) == 2000
    assert Progress.of(raw | {"history": [strange]}).history == ({"loss": None, "note": "x y", "deep": None},)
    assert (seen.data, seen.requested_by) == ("/films", "anna?")
    queue.fail(claimed, "\0" * 10 + "x" * 9000, NOW)
    assert runs.show(number).error == "x" * 2000


def test_what_cannot_be_a_request_is_refused(runs: TrainingRuns) -> None:
    good = {"name": "a", "data": "/films", "requested_by": "anna", "now": NOW, "preset": "quick"}
    for wrong, words in [
        ({"name": "../up"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"data": " "}, "in which folder"),
        ({"preset": ""}, "give one of them"),
        ({"preset": "../../secret"}, "not the name of a preset"),
        ({"preset": "", "description": "seed = "}, "not TOML"),
        ({"preset": "", "description": "#" * 70_000}, "longer than"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            runs.request(**{**good, **wrong})
    assert runs.list() == []


def test_an_unknown_run_is_said_so(runs: TrainingRuns) -> None:
    assert runs.find(7) is None
    for ask in (runs.show, lambda n: runs.ask_to_cancel(n, NOW), lambda n: runs.resume(n, NOW)):
        with pytest.raises(RecordError, match="7 is not known"):
            ask(7)


def test_every_stage_and_the_end_of_the_log_are_kept(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    curves = (
        Curve(task="multilabel", stage="64px", epochs=({"epoch": 1, "loss": 0.5, "auroc": 0.6},)),
        Curve(task="binary", stage="96px"),
    )
    queue.progress(claim(queue), Progress(task="binary", curves=curves, log="one\ntwo"), LEASE, NOW)
    found = runs.find(number)
    assert found is not None
    assert (found.progress.curves, found.progress.log) == (curves, "one\ntwo")
    raw = {"curves": ["none", {"task": "a\0b", "stage": 5, "epochs": {"not": "a list"}}, *({"task": "x"},) * 99]}
    assert len(Progress.of(raw).curves) == 64
    assert Progress.of({"curves": raw["curves"][:2]}).curves == (Curve(task="a b", stage="5"),)
    assert Progress.of({"log": "x" * 9000, "curves": "none"}) == Progress(log="x" * 6000)


def test_the_report_is_kept_with_the_run_that_it_is_of(runs: TrainingRuns, queue: Runs) -> None:
    with_one, without = request(runs, at=0), request(runs, at=1)
    queue.finish(claim(queue), {"bundle": "/a"}, NOW, "<p>rep\0ort</p>")
    queue.finish(claim(queue), {"bundle": "/b"}, NOW)
    assert (runs.report(with_one), runs.report(without)) == ("<p>report</p>", None)


def test_no_report_without_the_lease(runs: TrainingRuns, queue: Runs) -> None:
    number = request(runs)
    claimed = claim(queue)
    queue.rescue(after(61))
    with pytest.raises(LeaseLost):
        queue.finish(claimed, {}, after(62), "<p>late</p>")
    assert runs.report(number) is None


def test_trainers_are_known_while_they_say_that_they_are_there(runs: TrainingRuns, queue: Runs) -> None:
    queue.here("a/1", {"old": "words"}, after(0))
    queue.here("b/2", {"quick": "a trial"}, after(50))
    queue.here("a/1", {"nih": "everything"}, after(60))
    assert [(t.name, t.presets, t.seen_at) for t in runs.trainers(after(0))] == [
        ("a/1", {"nih": "everything"}, after(60)),
        ("b/2", {"quick": "a trial"}, after(50)),
    ]
    assert [t.name for t in runs.trainers(after(55))] == ["a/1"]
    queue.left("a/1")
    assert [t.name for t in runs.trainers(after(0))] == ["b/2"]
    queue.here("c/3", {}, after(50 + 2 * 86400))
    assert [t.name for t in runs.trainers(after(0))] == ["c/3"]


def test_a_preset_and_what_is_laid_over_it(runs: TrainingRuns, queue: Runs) -> None:
    runs.request(name="a", preset="quick", description="seed = 3", data="/films", requested_by="anna", now=NOW)
    claimed = claim(queue)
    assert (claimed.preset, claimed.description, claimed.folder) == ("quick", "seed = 3", "")


def test_the_change_token_moves_with_what_is_to_see(runs: TrainingRuns, queue: Runs) -> None:
    tokens = [runs.change_token()]
    number = request(runs)
    tokens.append(runs.change_token())
    claimed = claim(queue)
    tokens.append(runs.change_token())
    queue.progress(claimed, Progress(epoch=1), LEASE, NOW)
    tokens.append(runs.change_token())
    runs.ask_to_cancel(number, NOW)
    tokens.append(runs.change_token())
    queue.cancelled(claimed, NOW)
    tokens.append(runs.change_token())
    assert len(set(tokens)) == len(tokens)
    assert runs.change_token() == tokens[-1]


def begin(queue: Runs, folder: str = "/runs/own", at: float = 0.0) -> Claimed:
    return queue.begin(
        name="own",
        description="seed = 1",
        data="/films",
        folder=folder,
        requested_by="anna",
        trainer="here",
        lease=LEASE,
        now=after(at),
    )


def test_a_command_of_ones_own_is_a_row_and_goes_on_as_the_same_one(runs: TrainingRuns, queue: Runs) -> None:
    first = begin(queue)
    assert runs.show(first.id).state is RunState.RUNNING
    assert queue.claim("t1", LEASE, NOW) is None
    with pytest.raises(ConfigurationError, match="is running there"):
        begin(queue, at=30)
    assert begin(queue, "/runs/other").id != first.id
    queue.fail(first, "disk full", after(40))
    again = begin(queue, at=50)
    assert again.id == first.id
    assert runs.show(first.id).error == ""
    queue.finish(again, {}, after(60))
    assert begin(queue, at=70).id != first.id


def test_nobody_takes_over_a_command_of_ones_own(runs: TrainingRuns, queue: Runs) -> None:
    first = begin(queue)
    assert queue.rescue(after(61)) == 1
    assert runs.show(first.id).state is RunState.FAILED
    second = begin(queue, at=62)
    assert second.id == first.id
    assert begin(queue, at=200).id == first.id  # its lease has lapsed, and nobody has looked yet
    with pytest.raises(LeaseLost):
        queue.finish(second, {}, after(201))


def take(url: str, name: str, folder: Path) -> None:
    queue = Runs(url)
    taken = []
    while (claimed := queue.claim(name, LEASE, NOW)) is not None:
        taken.append(str(claimed.id))
        queue.finish(claimed, {}, NOW)
    (folder / name).write_text("\n".join(taken))
    queue.close()


def test_trainers_in_several_processes_never_take_the_same(url: str, runs: TrainingRuns, tmp_path: Path) -> None:
    numbers = sorted(str(request(runs, at=n)) for n in range(40))
    context = multiprocessing.get_context("spawn")
    names = ("t1", "t2", "t3")
    trainers = [context.Process(target=take, args=(url, name, tmp_path)) for name in names]
    for process in trainers:
        process.start()
    for process in trainers:
        process.join(120)
    assert [process.exitcode for process in trainers] == [0, 0, 0]
    assert sorted(n for name in names for n in (tmp_path / name).read_text().split()) == numbers


def test_a_trainer_without_tables_names_the_mend(empty_url: str, tmp_path: Path) -> None:
    if empty_url.startswith("sqlite"):
        with pytest.raises(RecordError, match="hilum migrate"):
            Runs(empty_url)
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "hilum.db").touch()
    with pytest.raises(RecordError, match="hilum migrate"):
        Runs(empty_url).check()
    for url in ("nonsense", "mysql+nope://x", "sqlite://"):
        with pytest.raises(RecordError, match="database"):
            Runs(url)
