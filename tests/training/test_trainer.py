"""The trainer with real children (small scripts in the place of a training), on a real queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer

from schemas.card import Calibration, ModelCard, model_id, read_card
from schemas.errors import ConfigurationError, RecordError
from schemas.findings import LABELS
from schemas.tables import Base
from schemas.training_run import Curve, RunState, TrainingRun
from tests import waiting
from training import trainer as trainer_module
from training.description import PACKAGED, read
from training.runs import Runs
from training.trainer import (
    DESCRIPTION,
    LOG,
    Trainer,
    child_command,
    held,
    last_words,
    log_end,
    now,
    read_progress,
    recorded,
    result_of,
    rival,
)
from worker.record.database import Database
from worker.record.registry import Registry

eventually = partial(waiting.eventually, seconds=120.0)

TOML = 'seed = 3\n[[multilabel]]\nname = "only"\n'
OUTPUTS = ("binary", *LABELS)


def card(name: str = "asked") -> ModelCard:
    return ModelCard(
        name=name,
        version="1",
        architecture="small",
        input_size=32,
        labels=LABELS,
        recipe_fingerprint="r",
        files={"binary.npz": "00"},
        thresholds=dict.fromkeys(OUTPUTS, 0.5),
        calibration=dict.fromkeys(OUTPUTS, Calibration()),
        split_hash="0",
        metrics={
            "test": {"macro_auroc": {"value": 0.7, "low": 0.6, "high": 0.8}, "binary": {"auroc": {"value": 0.65}}}
        },
    )


def write_card(folder: Path) -> None:
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle" / "card.json").write_text(card().to_json())


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with today's tables; migrations have tests of their own."""
    url = f"sqlite:///{tmp_path}/hilum.db"
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return url


@pytest.fixture
def queue(url: str) -> Iterator[Runs]:
    queue = Runs(url)
    yield queue
    queue.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


def request(
    url: str, data: Path | str, *, preset: str = "", description: str = TOML, name: str = "asked", over: str = ""
) -> int:
    """As the worker's side does it (which is proven in the record's own tests)."""
    values = {
        "name": name,
        "state": "requested",
        "preset": preset,
        "description": over if preset else description,
        "data": str(data),
        "folder": "",
        "requested_by": "anna",
        "requested_at": now(),
        "attempts": 0,
        "cancel_asked": False,
        "progress": {},
        "error": "",
        "changes": 0,
    }
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        number = connection.execute(
            sa.insert(Base.metadata.tables["training_runs"]).values(values)
        ).inserted_primary_key
    engine.dispose()
    assert number is not None
    return int(number[0])


def ask_to_cancel(url: str, number: int) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE training_runs SET cancel_asked = 1 WHERE id = {number}"))
    engine.dispose()


def child(*scripts: str) -> Callable[[Path, Path], list[str]]:
    """A training that is these scripts, with `folder` and `data` at hand and `say(**progress)`."""
    opening = """
        import json, os, pathlib, signal, sys, time
        folder, data = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
        def say(**progress):
            (folder / "new").write_text(json.dumps(progress))
            (folder / "new").replace(folder / "progress.json")
    """
    code = "\n".join(map(textwrap.dedent, (opening, *scripts)))
    return lambda folder, data: [sys.executable, "-c", code, str(folder), str(data)]


FINISH = f"""
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle" / "card.json").write_text({card().to_json()!r})
"""


def trainer(queue: Runs, tmp_path: Path, *scripts: str, **options: object) -> Trainer:
    fast: dict[str, object] = {"command": child(*scripts), "beat": 0.05, "idle": 0.05, "grace": 10.0}
    return Trainer(queue, tmp_path / "runs", **{**fast, **options})  # type: ignore[arg-type]


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_requested_run_becomes_a_bundle(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    seen: list[TrainingRun] = []
    told = Runs.progress

    class Watched(Runs):
        def progress(self, *args: object, **words: object) -> None:
            told(self, *args, **words)  # type: ignore[arg-type]
            seen.append(self.show(number))

    script = """
        assert os.path.samefile(data, data) and (folder / "run.toml").read_text()
        for epoch in (1, 2):
            say(task="fit", stage="only", epoch=epoch, loss=0.5 / epoch, auroc=0.6, films_per_second=6.5,
                seconds_left=60, history=[{"epoch": n + 1, "loss": 0.5} for n in range(epoch)])
            time.sleep(0.3)
        say(task="export")
    """
    trainer(Watched(url), tmp_path, script, FINISH).work(once=True)
    run = queue.show(number)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    assert run.state is RunState.DONE
    assert run.error == ""
    assert run.result == {
        "bundle": str(folder / "bundle"),
        "model_id": result_of(folder)["model_id"],
        "name": "asked",
        "version": "1",
        "macro": {"value": 0.7, "low": 0.6, "high": 0.8},
        "binary": {"value": 0.65, "low": None, "high": None},
        "report": None,
    }
    assert [s.progress.epoch for s in seen if s.progress.task == "fit"] == [1, 2]  # written when it changes, no oftener
    assert seen[-1].progress.task == run.progress.task == "export"
    assert (seen[0].state, seen[0].folder) == (RunState.RUNNING, str(folder))
    locked = read(str(folder / DESCRIPTION))
    assert (locked.name, locked.seed, locked.multilabel[0].name) == ("asked", 3, "only")
    assert run.description == (folder / DESCRIPTION).read_text()


HISTORIES = """
    for task, stage in (("binary", "last"), ("multilabel", "first")):
        (folder / task / stage).mkdir(parents=True, exist_ok=True)
        (folder / task / stage / "history.json").write_text(json.dumps([{"epoch": 1, "loss": 0.5, "auroc": 0.6}]))
    print("film 1\\rfilm 2")
    print("\\x1b[31mepoch 1\\x1b[0m", flush=True)
    (folder / "report.html").write_text("<p>how it went</p>")
    say(task="done")
"""


def test_curves_of_every_stage_the_log_and_the_report_are_in_the_database(
    url: str, queue: Runs, data: Path, tmp_path: Path
) -> None:
    stages = '[[multilabel]]\nname = "first"\n[[multilabel]]\nname = "not-yet"\n[[binary]]\nname = "last"\n'
    number = request(url, data, description=stages)
    trainer(queue, tmp_path, HISTORIES, FINISH).work(once=True)
    run = queue.show(number)
    assert run.state is RunState.DONE, run.error
    epochs = ({"epoch": 1.0, "loss": 0.5, "auroc": 0.6},)
    assert run.progress.curves == (
        Curve(task="multilabel", stage="first", epochs=epochs),
        Curve(task="binary", stage="last", epochs=epochs),
    )
    assert run.progress.log == "film 2\nepoch 1"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        rows = connection.execute(sa.text("SELECT run_id, html FROM training_reports")).all()
    engine.dispose()
    assert rows == [(number, "<p>how it went</p>")]


def test_of_a_long_log_the_last_whole_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("".join(f"line {n:06}\n" for n in range(20_000)))
    told = log_end(tmp_path / LOG).split("\n")
    assert told[-1] == "line 019999"
    assert all(len(line) == 11 for line in told)
    assert 400 < len(told) < 600


def test_what_was_asked_is_laid_over_the_preset(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    groups = '[model.groups]\nopacity = ["Infiltration", "Pneumonia"]\n'
    number = request(url, data, preset="quick", over=groups, name="mine")
    trainer(queue, tmp_path, FINISH).work(once=True)
    locked = read(str(tmp_path / "runs" / f"{number:05}-mine" / DESCRIPTION))
    plain = read("quick")
    assert {name: [str(label) for label in found] for name, found in locked.model.groups.items()} == {
        "opacity": ["Infiltration", "Pneumonia"]
    }
    assert (locked.name, locked.model.size, locked.binary) == ("mine", plain.model.size, plain.binary)


def test_a_run_that_is_resumed_keeps_the_description_that_it_began_with(
    url: str, queue: Runs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of hilum may have another preset of that name, or none."""
    number = request(url, data, preset="quick", over="seed = 7\n")
    trainer(queue, tmp_path, "sys.exit(1)").work(once=True)
    began = queue.show(number).description
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE training_runs SET state = 'requested'"))
    engine.dispose()
    monkeypatch.setattr("training.description.presets", dict)
    trainer(queue, tmp_path, FINISH).work(once=True)
    run = queue.show(number)
    assert (run.state, run.description) == (RunState.DONE, began)
    assert "seed = 7" in began


def test_a_trainer_says_that_it_is_there_and_what_it_knows(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    request(url, data)
    at = now()
    said: list[tuple[str, bool]] = []
    told = Runs.here

    class Watched(Runs):
        def here(self, *args: object) -> None:
            told(self, *args)  # type: ignore[arg-type]
            said.append((str(args[0]), "quick" in args[1]))  # type: ignore[operator]

    ticks = iter(range(1000))
    each = Trainer(
        Watched(url),
        tmp_path / "runs",
        command=child("time.sleep(0.5)", FINISH),
        beat=0.05,
        clock=lambda: at + timedelta(seconds=3 * next(ticks)),  # time flies: it is said while a run is in hand too
    )
    each.work(once=True)
    assert len(said) > 2
    assert set(said) == {(each.name, True)}


def test_a_run_is_measured_against_the_model_that_reads(
    url: str, queue: Runs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert queue.live() is None and rival(None) == []
    starter = read_card(PACKAGED / "starter")
    record = Database(url)
    Registry(record).first("starter", starter, now())
    record.close()
    assert queue.live() == model_id(starter)
    assert rival("of another site") == []
    Path("var/models/mine").mkdir(parents=True)
    Path("var/models/mine/card.json").write_text(card().to_json())
    assert rival(model_id(card())) == [f"--against={tmp_path}/var/models/mine"]
    Path("var/models/broken").mkdir()
    request(url, data)
    trainer(queue, tmp_path, """(folder / "asked").write_text(sys.argv[3])""", FINISH).work(once=True)
    (said,) = tmp_path.glob("runs/*/asked")
    assert said.read_text() == f"--against={PACKAGED / 'starter'}"


def test_runs_are_taken_one_after_the_other_and_once_ends(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    numbers = [request(url, data, name=name) for name in ("one", "two")]
    trainer(queue, tmp_path, FINISH).work(once=True)
    assert [queue.show(n).state for n in numbers] == [RunState.DONE, RunState.DONE]
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {f"{numbers[0]:05}-one", f"{numbers[1]:05}-two"}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise KeyError('Patient ID')", "KeyError: 'Patient ID'"),
        (
            "print('hilum train: run.toml: 2 fault(s)\\n  seed: wrong\\n  data: wrong', file=sys.stderr); sys.exit(2)",
            "run.toml: 2 fault(s)\n  seed: wrong\n  data: wrong",
        ),
        ("print('\\x1b[31mfilm 1\\rfilm 2\\x1b[0m of 2\\n', end=''); sys.exit(1)", "film 2 of 2"),
        ("print('last', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL; the machine ran out"),
        ("sys.exit(3)", "ended with status 3 and without a word"),
        ("", "training ended without a usable bundle"),
    ],
)
def test_why_it_failed_is_in_the_row(
    url: str, queue: Runs, data: Path, tmp_path: Path, script: str, words: str
) -> None:
    number = request(url, data)
    trainer(queue, tmp_path, script).work(once=True)
    run = queue.show(number)
    assert run.state is RunState.FAILED
    assert run.error.startswith(words)
    assert "\x1b" not in run.error


def test_what_cannot_run_is_refused_in_clear_words(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text(TOML)
    for asked, words in [
        (request(url, data, preset="quick", over="seed = -1\n"), "fault(s)\n"),
        (request(url, data, preset="quick", over='source = "x"\n'), "source"),
        (request(url, data, preset="quick", over="seed = "), "not TOML"),
        (request(url, data, preset="nonsense"), "preset 'nonsense' is not known; there are:"),
        (request(url, data, preset=str(secret)), "is not known"),  # a preset is a name, never a file of this machine
        (request(url, data, description="seed = -1\n"), "fault(s)\n"),
        (request(url, data, description="seed = "), "not TOML"),
        (request(url, tmp_path / "nowhere"), "is not a folder on"),
        (request(url, data, name="../up"), "cannot be a folder's"),
    ]:
        trainer(queue, tmp_path, "raise SystemExit('it was run')").work(once=True)
        assert queue.show(asked).state is RunState.FAILED
        assert words in queue.show(asked).error
    assert not (tmp_path / "up").exists()


def test_a_full_or_forbidden_disk_is_said_so(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    number = request(url, data)
    trainer(queue, tmp_path).work(once=True)
    assert "runs" in queue.show(number).error
    assert queue.show(number).state is RunState.FAILED


STEADY = """
    def stop(*_):
        (folder / "checkpoint.npz").write_text("kept")
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    say(task="fit", epoch=1)
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_cancel_stops_the_child_and_keeps_its_checkpoint(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    thread = in_background(lambda: trainer(queue, tmp_path, STEADY).work(once=True))
    eventually((folder / "pid").exists)
    ask_to_cancel(url, number)
    thread.join(120)
    run = queue.show(number)
    assert (run.state, run.error, run.progress.task) == (RunState.CANCELLED, "", "fit")
    assert (folder / "checkpoint.npz").read_text() == "kept"


def test_a_child_that_does_not_listen_is_killed(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'deaf').touch(); time.sleep(60)"
    thread = in_background(lambda: trainer(queue, tmp_path, script, grace=0.2).work(once=True))
    eventually((folder / "deaf").exists)
    ask_to_cancel(url, number)
    thread.join(120)
    assert queue.show(number).state is RunState.CANCELLED


def test_a_trainer_that_is_stopped_gives_its_run_back_and_the_next_goes_on(
    url: str, queue: Runs, data: Path, tmp_path: Path
) -> None:
    number = request(url, data)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    stopping = threading.Event()
    first = trainer(queue, tmp_path, STEADY, stopping=stopping.is_set)
    thread = in_background(first.work)
    eventually((folder / "pid").exists)
    stopping.set()
    thread.join(120)
    run = queue.show(number)
    assert (run.state, run.attempts, run.trainer) == (RunState.REQUESTED, 0, "")
    went_on = 'assert (folder / "checkpoint.npz").read_text() == "kept"'
    elsewhere = Trainer(queue, tmp_path / "elsewhere", command=child(went_on, FINISH), beat=0.05)
    elsewhere.work(once=True)
    assert queue.show(number).state is RunState.DONE, queue.show(number).error


def test_a_run_that_somebody_else_holds_now_is_let_go(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    thread = in_background(lambda: trainer(queue, tmp_path, STEADY).work(once=True))
    eventually((folder / "pid").exists)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE training_runs SET lease_owner = 'another'"))
    engine.dispose()
    thread.join(120)
    assert not thread.is_alive()
    assert queue.show(number).trainer == "another"
    assert queue.show(number).state is RunState.RUNNING
    assert (folder / "checkpoint.npz").exists()  # its child was asked to stop


def test_the_lease_is_kept_while_there_is_nothing_to_tell(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    lease = timedelta(seconds=0.8)
    thread = in_background(lambda: trainer(queue, tmp_path, "time.sleep(2.5)", FINISH, lease=lease).work(once=True))
    rescued = 0
    while thread.is_alive():
        rescued += queue.rescue(now())
        time.sleep(0.05)
    assert rescued == 0
    assert queue.show(number).state is RunState.DONE, queue.show(number).error


def test_a_database_that_goes_away_does_not_stop_a_child(url: str, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    away = threading.Event()

    class Flaky(Runs):
        def cancel_asked(self, run: object) -> bool:
            if away.is_set():
                raise RecordError("database: gone")
            return super().cancel_asked(run)  # type: ignore[arg-type]

        def finish(self, *args: object) -> None:
            if away.is_set():
                away.clear()
                raise RecordError("database: gone")
            super().finish(*args)  # type: ignore[arg-type]

    away.set()
    queue = Flaky(url)
    trainer(queue, tmp_path, "time.sleep(0.3)", FINISH).work(once=True)
    assert not away.is_set()
    assert queue.show(number).state is RunState.DONE


def test_a_folder_in_use_is_not_trained_in_twice(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    number = request(url, data)
    folder = tmp_path / "runs" / f"{number:05}-asked"
    folder.mkdir(parents=True)
    with held(folder):
        trainer(queue, tmp_path, FINISH).work(once=True)
    assert "another process trains there" in queue.show(number).error


TRAINER = """
import sys
from pathlib import Path
from training import trainer

trainer.child_command = lambda folder, data: [sys.executable, "-c", sys.argv[3], str(folder)]
trainer.Trainer.__init__.__kwdefaults__["command"] = trainer.child_command
trainer.trainer(sys.argv[1], Path(sys.argv[2]), once=False)
"""


@pytest.mark.parametrize(("number", "state"), [(signal.SIGTERM, "requested"), (signal.SIGKILL, "running")])
def test_a_trainer_process_takes_its_child_along(
    url: str, queue: Runs, data: Path, tmp_path: Path, number: signal.Signals, state: str
) -> None:
    run = request(url, data)
    folder = tmp_path / "runs" / f"{run:05}-asked"
    script = "import os, pathlib, sys, time; p = pathlib.Path(sys.argv[1]) / 'pid'; p.write_text(str(os.getpid()))"
    process = subprocess.Popen([sys.executable, "-c", TRAINER, url, tmp_path / "runs", script + "; time.sleep(60)"])
    eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    pid = int((folder / "pid").read_text())
    process.send_signal(number)
    assert process.wait(120) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    eventually(lambda: not _alive(pid))
    assert queue.show(run).state == state
    with held(folder):
        pass  # whoever is next may train here


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', "[" * 100_000, "\udcff", '{"epoch": 1e999}'])
def test_a_progress_file_that_is_none_is_no_progress(tmp_path: Path, text: str) -> None:
    assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = read_progress(tmp_path)
    assert found is None or (found.task, found.epoch, found.history) == ("", None, ())


def test_an_endless_progress_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"task": "fit", "history": [{"n": "x" * 200}] * 30_000}))
    assert read_progress(tmp_path) is None


def test_the_last_words_are_those_of_this_attempt(tmp_path: Path) -> None:
    path = tmp_path / LOG
    path.write_text("hilum: an earlier fault\n")
    began = path.stat().st_size
    assert last_words(path, began, 1).startswith("ended with status 1")
    with path.open("ab") as file:
        file.write(b"x" * 200_000 + b"\nhilum: disk full\xff\n\n")
    assert last_words(path, began, 1) == "disk full\N{REPLACEMENT CHARACTER}"


def test_the_command_is_what_training_understands_and_ties_values_to_options(tmp_path: Path) -> None:
    command = child_command(tmp_path, Path("--help"))
    assert command[:3] == [sys.executable, "-m", "training"]
    from training import cli

    app = typer.Typer()
    app.command()(cli.train)
    understood = typer.main.get_command(app).make_context("training", list(command[3:])).params
    assert understood["run_folder"] == tmp_path
    assert understood["data"] == Path("--help")
    assert understood["preset"] == str(tmp_path / DESCRIPTION)
    assert understood["step"] == "all"
    assert understood["database"] == ""  # the row is the trainer's


def row(url: str, folder: Path, data: Path, **options: object) -> object:
    fast: dict[str, object] = {"name": "own", "description": TOML, "data": data, "folder": folder, "beat": 0.05}
    return recorded(url, **{**fast, **options})  # type: ignore[arg-type]


def test_a_training_of_ones_own_is_a_row(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    with row(url, folder, data) as number:  # type: ignore[attr-defined]
        assert queue.show(number).state is RunState.RUNNING
        (folder / "progress.json").write_text('{"task": "fit", "epoch": 4}')
        eventually(lambda: queue.show(number).progress.epoch == 4)
        with pytest.raises(ConfigurationError, match="another process trains there"), row(url, folder, data):  # type: ignore[attr-defined]
            pass
        write_card(folder)
    run = queue.show(number)
    assert (run.state, run.name, run.folder) == (RunState.DONE, "own", str(folder))
    assert run.result is not None
    assert run.result["macro"] == {"value": 0.7, "low": 0.6, "high": 0.8}


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (ConfigurationError("no films in /x"), RunState.FAILED, "no films in /x"),
        (KeyError("Patient ID"), RunState.FAILED, "KeyError: 'Patient ID'"),
        (KeyboardInterrupt(), RunState.CANCELLED, ""),
        (SystemExit(143), RunState.CANCELLED, ""),
    ],
)
def test_how_ones_own_training_ends_is_how_its_row_ends(
    url: str, queue: Runs, data: Path, tmp_path: Path, error: BaseException, state: RunState, words: str
) -> None:
    with pytest.raises(type(error)), row(url, tmp_path / "own", data) as number:  # type: ignore[attr-defined]
        raise error
    assert (queue.show(number).state, queue.show(number).error) == (state, words)
    with row(url, tmp_path / "own", data) as again:  # type: ignore[attr-defined]
        write_card(tmp_path / "own")
    assert again == number
    assert queue.show(number).state is RunState.DONE


def test_cancel_reaches_a_training_of_ones_own(url: str, queue: Runs, data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), row(url, tmp_path / "own", data) as number:  # type: ignore[attr-defined]
        ask_to_cancel(url, number)
        for _ in range(600):
            time.sleep(0.05)
    assert queue.show(number).state is RunState.CANCELLED


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(typer.Exit) as ended:
            trainer_module.trainer(f"sqlite:///{tmp_path}/none.db", tmp_path / "runs", once=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.exit_code == 1
    assert "hilum migrate" in capsys.readouterr().err
