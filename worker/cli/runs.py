"""`hilum runs`: training runs as the database knows them. `hilum trainer` carries them out, wherever the films are."""

from __future__ import annotations

import json
import os
import pwd
import time
import tomllib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from schemas.errors import ConfigurationError
from schemas.figures import figure_in
from schemas.training_run import FINISHED, RunState, TrainingRun
from worker.cli.options import ConfigOption, clear_errors, console, plain, print_table, settings_from
from worker.cli.worklist import waited

if TYPE_CHECKING:
    from worker.record.training_runs import TrainingRuns

app = typer.Typer(
    no_args_is_help=True,
    help="Training runs: ask for one, watch it, call it off.\n\n"
    "A run waits in the worker's database until a `hilum trainer` takes it, on whichever machine has the films. Its "
    "result is a bundle in the run's folder: `hilum models import` takes it into the store.",
)

STYLE = {
    RunState.REQUESTED: "dim",
    RunState.RUNNING: "bold",
    RunState.DONE: "green",
    RunState.FAILED: "bold red",
    RunState.CANCELLED: "yellow",
}
EVERY = 1.0  # seconds between two looks of `--follow`

RunArgument = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**31, help="As `hilum runs list` shows it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def duration(seconds: float) -> str:
    """For a person: "40 s", "12 min", "3 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress_words(run: TrainingRun) -> str:
    """How far a run is, on one line."""
    p = run.progress
    parts = [p.task, p.stage]
    if p.epoch is not None:
        parts.append(f"epoch {p.epoch}" + (f"/{p.epochs}" if p.epochs else ""))
    if p.step is not None and p.steps:
        parts.append(f"{min(1.0, p.step / p.steps):.0%}")
    if p.loss is not None:
        parts.append(f"loss {p.loss:.4f}")
    if p.auroc is not None:
        parts.append(f"AUROC {p.auroc:.3f}")
    if p.films_per_second is not None and run.state is RunState.RUNNING:
        parts.append(f"{p.films_per_second:.1f} films/s")
    if p.seconds_left is not None and run.state is RunState.RUNNING:
        parts.append(f"{duration(p.seconds_left)} left of the stage")
    return ", ".join(part for part in parts if part)


def outcome_words(run: TrainingRun) -> str:
    """What a run came to, or how far it is, on one line."""
    if run.state is RunState.DONE and run.result is not None:
        named = (f"{name} AUROC {figure}" for name, figure in _figures(run) if figure)
        return ", ".join([str(run.result.get("bundle", "")), *named])
    if run.state is RunState.FAILED:
        return run.error.partition("\n")[0]
    if run.state is RunState.RUNNING and run.cancel_asked:
        return "is being stopped"
    return progress_words(run)


def _figures(run: TrainingRun) -> list[tuple[str, str]]:
    result = run.result or {}
    found = ((name, figure_in(result, name)) for name in ("binary", "macro"))
    return [(name, "" if figure is None else str(figure)) for name, figure in found]


def _runs(config: Path | None) -> TrainingRuns:
    from worker.assemble import database
    from worker.record.training_runs import TrainingRuns

    db = database(settings_from(config))
    db.check()
    return TrainingRuns(db)


def _now() -> datetime:
    from worker.assemble import now

    return now()


def user() -> str:
    """Who runs this command, as the system knows him."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@app.command(name="list")
@clear_errors
def list_runs(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many runs.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and run.")] = False,
) -> None:
    """The runs, the latest first."""
    found = _runs(config).list(limit)
    if as_json:
        for run in found:
            print(json.dumps(run.to_json()), flush=True)  # noqa: T201  for programs
        return
    table = Table("id", "name", "of", "state", "asked", Column("so far", overflow="fold"), box=None)
    for run in found:
        table.add_row(
            str(run.id),
            plain(run.name),
            plain(run.preset or "a TOML file"),
            Text(run.state.value, STYLE[run.state]),
            plain(f"{waited(run.requested_at, _now())} ago by {run.requested_by}"),
            plain(outcome_words(run)),
        )
    print_table(table)
    if not found:
        console.print("no training run was asked for yet; `hilum runs request --help` says how")


@app.command()
@clear_errors
def show(
    run: RunArgument,
    config: ConfigOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until it has finished. Exit 1 when it failed or was cancelled.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Everything recorded of one run. Its curves are in `--json`, its log and checkpoints in its folder."""
    runs = _runs(config)
    found = runs.show(run)
    if follow:
        found = _follow(lambda: runs.show(run), found, quiet=as_json)
    if as_json:
        print(json.dumps(found.to_json()))  # noqa: T201  for programs
    else:
        print_table(_facts(found))
    if follow and found.state is not RunState.DONE:
        raise typer.Exit(1)


def _follow(look: Callable[[], TrainingRun], run: TrainingRun, *, quiet: bool) -> TrainingRun:
    """Show one line that changes, where there is a terminal; else a line for each epoch and state."""
    live = console.is_terminal and not quiet
    with Live(console=console, transient=True, auto_refresh=False) if live else _Lines(quiet=quiet) as view:
        while True:
            view.update(_line(run), refresh=True)
            if run.state in FINISHED:
                return run
            time.sleep(EVERY)
            run = look()


class _Lines:
    """In the place of a live line, where the output is a file: what differs in more than speed and time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._said: object = None

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, line: _Line, *, refresh: bool) -> None:
        """Print the line when there is news in it."""
        if not self._quiet and line.news != self._said:
            console.print(line, soft_wrap=True)
            self._said = line.news


class _Line(Text):
    """One line of a run that is followed."""

    news: object = None


def _line(run: TrainingRun) -> _Line:
    line = _Line(f"{run.id} {run.name} ", end="\n")
    line.append(run.state.value, STYLE[run.state])
    line.append(f"  {outcome_words(run)}")
    p = run.progress
    line.news = (run.state, p.task, p.stage, p.epoch, run.cancel_asked)
    return line


def _facts(run: TrainingRun) -> Table:
    table = Table(Column(style="bold"), Column(overflow="fold"), box=None, show_header=False)
    took = None
    if run.started_at is not None:
        took = (run.finished_at or _now()) - run.started_at
    facts: list[tuple[str, Any]] = [
        ("run", f"{run.id} {run.name}"),
        ("state", run.state.value + (", asked to stop" if run.cancel_asked and run.state not in FINISHED else "")),
        ("described by", f"preset {run.preset}" if run.preset else "a TOML file"),
        ("films", run.data),
        ("asked", f"{run.requested_at:%Y-%m-%d %H:%M} UTC by {run.requested_by}"),
        ("began", "" if run.started_at is None else f"{run.started_at:%Y-%m-%d %H:%M} UTC, attempt {run.attempts}"),
        ("took" if run.finished_at else "for", "" if took is None else duration(took / timedelta(seconds=1))),
        ("trainer", run.trainer),
        ("folder", run.folder),
        ("so far", progress_words(run)),
        ("failed", run.error),
    ]
    if run.result is not None:
        facts += [("bundle", run.result.get("bundle", "")), ("model", run.result.get("model_id", ""))]
        facts += [(f"{name} AUROC", figure) for name, figure in _figures(run)]
        facts += [("report", run.result.get("report") or "")]
    for key, value in facts:
        if value:
            table.add_row(key, plain(value))
    return table


@app.command()
@clear_errors
def request(
    data: Annotated[Path, typer.Option(help="Folder of NIH's films and table, as the trainer's machine knows it.")],
    preset: Annotated[
        str | None, typer.Option(help="Name of a preset of `hilum train`, for example quick.", metavar="NAME")
    ] = None,
    description: Annotated[
        Path | None, typer.Option(help="A run's TOML file instead of a preset.", dir_okay=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run and its bundle; default: the preset's, or the file's `name`.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a training run. It begins when a `hilum trainer` on this database is free.

    Presets belong to training, not to the worker: a name that the trainer does not know fails the run, which then says
    which names there are.
    """
    if (preset is None) == (description is None):
        raise ConfigurationError("say what to run: --preset NAME, or --description FILE")
    text, default = "", preset or ""
    if description is not None:
        text, default = _read(description)
    number = _runs(config).request(
        name=name or default,
        preset=preset or "",
        description=text,
        data=str(data.absolute()),
        requested_by=user(),
        now=_now(),
    )
    if as_json:
        print(json.dumps({"id": number}))  # noqa: T201  for programs
        return
    console.print(f"training run {number} is requested; watch it: hilum runs show {number} --follow", highlight=False)
    if not data.is_dir():
        console.print(f"{plain(data)} is no folder on this machine; the trainer's must have it", highlight=False)


def _read(path: Path) -> tuple[str, str]:
    """A description's text and the name in it. Raises `ConfigurationError`."""
    try:
        text = path.read_text(encoding="utf-8")
        name = tomllib.loads(text).get("name", path.stem)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    return text, str(name)


@app.command()
@clear_errors
def cancel(run: RunArgument, config: ConfigOption = None) -> None:
    """Call a run off. What it has learnt so far stays in its folder, and `hilum runs resume` goes on from there."""
    state = _runs(config).ask_to_cancel(run, _now())
    if state is RunState.CANCELLED:
        console.print(f"training run {run} is cancelled")
    else:
        console.print(f"training run {run} is asked to stop; its trainer does so within seconds")


@app.command()
@clear_errors
def resume(run: RunArgument, config: ConfigOption = None) -> None:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint, where its folder still is."""
    _runs(config).resume(run, _now())
    console.print(f"training run {run} is requested again")
