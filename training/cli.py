"""`hilum train`: from NIH's films to a bundle that the worker takes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from schemas.errors import ConfigurationError, HilumError
from training import description

console = Console()
complaints = Console(stderr=True)


class Step(StrEnum):
    """What `hilum train` does; each takes what the steps before it left in the run's folder."""

    ALL = "all"
    INDEX = "index"
    SPLIT = "split"
    CACHE = "cache"
    FIT = "fit"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"
    REPORT = "report"
    EXPORT = "export"
    COMPARE = "compare"
    PRESETS = "presets"


class Only(StrEnum):
    """One of the two models."""

    BINARY = "binary"
    MULTILABEL = "multilabel"


class Split(StrEnum):
    """How test patients are set apart."""

    LISTS = "lists"
    HASH = "hash"


def train(
    step: Annotated[
        Step,
        typer.Argument(
            help="all: every step. index, split, cache, fit, calibrate, evaluate, report, export: that one alone. "
            "compare: trains several networks and tabulates them. presets: lists them."
        ),
    ] = Step.ALL,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Folder with NIH's table and official lists, and the films anywhere below it (PNG, WebP, JPEG).",
        ),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="A preset's name, or a TOML file of your own.")] = "nih",
    run_folder: Annotated[
        Path | None,
        typer.Option(help="Of this run: checkpoints, report, bundle. The same folder goes on. Default: runs/NAME."),
    ] = None,
    caches: Annotated[
        Path | None, typer.Option("--cache", help="Folder of pixel caches, shared by runs. Default: beside the run.")
    ] = None,
    only: Annotated[
        Only | None,
        typer.Option(help="Train one model; the other is taken from the bundle that is kept (starter)."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="random, imagenet, imagenet:FILE, bundle:NAME, torch:FILE (a DenseNet121 checkpoint)."),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="lists: NIH's official ones. hash: by patient, where there are no lists; not comparable."),
    ] = None,
    against: Annotated[str, typer.Option(help="A bundle (name or folder) to measure on the same test films.")] = "",
    store: Annotated[Path, typer.Option(help="Folder of the site's bundles, where names are looked up.")] = Path(
        "var/models"
    ),
    name: Annotated[str | None, typer.Option(help="Of the bundle.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the bundle.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed on the same machine gives the same bundle.")] = None,
    over: Annotated[
        list[description.Over] | None,
        typer.Option(
            help="compare: what the networks differ in; given more than once, every combination of them. "
            "Default: backbone and construction."
        ),
    ] = None,
    with_films: Annotated[
        bool,
        typer.Option("--with-films", help="Put the most confidently wrong films into the report. Not for publishing."),
    ] = False,
    database: Annotated[str, typer.Option(help="Database URL: the run is a row there, to be watched.")] = "",
    held_already: Annotated[bool, typer.Option("--held", hidden=True, help="A trainer holds the folder.")] = False,
) -> None:
    """Rebuild the two models from NIH ChestX-ray14: one command, from films to a bundle that `hilum serve` takes.

    index → split → cache → fit → calibrate → evaluate → report → export; progress is shown, every epoch is saved, and
    the same command goes on where a stopped one was. `hilum train presets` lists what can be trained, and
    `hilum train --data FOLDER --preset quick` tries it all in about ten minutes on two cores.
    """
    with _clear_errors():
        if step is Step.PRESETS:
            _presets()
            return
        if data is None:
            raise ConfigurationError("--data: name the folder with NIH's table and films")
        run = _description(preset, only=only, start=start, split=split, name=name, version=version, seed=seed)
        folder = run_folder or Path("runs") / run.name
        # TensorFlow's C++ side reads this when it is imported, and would talk about itself on stderr.
        os.putenv("TF_CPP_MIN_LOG_LEVEL", "2")
        if database and step is not Step.ALL:
            raise ConfigurationError("--database goes with the whole run: leave out the step")
        from training.trainer import held, recorded

        folder.mkdir(parents=True, exist_ok=True)
        alone: AbstractContextManager[object] = (
            nullcontext() if held_already or database else held(folder)
        )  # `recorded` holds it too
        with alone, _progress() as progress:
            from training.flow import Flow

            flow = Flow(
                run=run,
                data=data,
                folder=folder,
                caches=caches or folder.parent / "cache",
                progress=progress,
                against=against,
                stores=(store,),
                with_films=with_films,
            )
            if step is Step.COMPARE:
                from training.compare import compare

                rows = compare(flow, over or [description.Over.BACKBONE, description.Over.CONSTRUCTION])
            elif database:
                with recorded(database, name=run.name, description=run.to_toml(), data=data, folder=folder):
                    flow.all()
            else:
                getattr(flow, step.value)()
        if step is Step.COMPARE:
            from training.compare import table

            console.print(table(rows))
        _told(step, folder)


def _description(
    preset: str, *, only: Only | None, start: str | None, split: Split | None, **over: Any
) -> description.Run:
    """What the preset says, and over it what the command says."""
    chosen = {key: value for key, value in over.items() if value is not None}
    if start is not None:
        chosen["model"] = {"start": start}
    if split is not None:
        chosen["data"] = {"split": str(split)}
    if only is not None:
        chosen["binary" if only is Only.MULTILABEL else "multilabel"] = []
    return description.read(preset, **chosen)


def _told(step: Step, folder: Path) -> None:
    """Where the result is; and what the worker itself says of a new bundle."""
    if step not in (Step.ALL, Step.EXPORT):
        console.print(f"{step}: done, see {escape(str(folder))}")
        return
    bundle = folder / "bundle"
    _proven_by_the_worker(bundle)
    console.print(f"report: {escape(str(folder / 'report.html'))}\nbundle: {escape(str(bundle))}")
    console.print(
        f"to serve it: hilum models import {escape(str(bundle))}, then [model] bundle in hilum.toml", markup=False
    )


def _proven_by_the_worker(bundle: Path) -> None:
    """Hashes, recipe and golden vectors, on the runtime that will serve: by the program that will serve it."""
    hilum = Path(sys.executable).with_name("hilum")
    if not hilum.exists():
        complaints.print(
            f"no `hilum` beside this Python: prove the bundle with `hilum models verify {escape(str(bundle))}`"
        )
    elif subprocess.run([hilum, "models", "verify", bundle], check=False).returncode:  # noqa: S603
        raise ConfigurationError(f"{bundle}: the worker does not take this bundle, see above")


def _presets() -> None:
    table = Table(box=None, header_style="bold")
    for column in ("preset", "what it is for"):
        table.add_column(column)
    for name, words in description.presets().items():
        table.add_row(escape(name), escape(words))
    console.print(table)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A live line on a terminal, log lines everywhere; SIGTERM ends a run like Ctrl-C, at a safe place."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    from training.pixel_cache import FilmsPerSecond

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), FilmsPerSecond())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=complaints) as progress:
        handler: logging.Handler = (
            RichHandler(console=progress.console, show_path=False, show_level=False)
            if complaints.is_terminal
            else logging.StreamHandler()
        )
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[handler], force=True)
        try:
            yield progress
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """A fault as one clear message: exit 2 for what was asked, 1 for the rest, 130 when it was stopped."""
    try:
        yield
    except KeyboardInterrupt:
        complaints.print("hilum train: stopped; the same command goes on from the last epoch")
        raise typer.Exit(130) from None
    except HilumError as error:
        complaints.print(f"[bold red]hilum train:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from error
    except OSError as error:
        where = error.filename or "disk"
        complaints.print(
            f"[bold red]hilum train:[/] {escape(str(where))}: {escape(error.strerror or str(error))}; nothing that was "
            "finished is lost, mend it and give the same command again",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1) from error
