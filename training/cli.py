"""`hilum train`: from NIH's films to a bundle."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

app = typer.Typer(no_args_is_help=True, help="Train the two models on NIH ChestX-ray14 and write a bundle.")


@app.callback()
def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@app.command()
def fit(
    nih: Annotated[Path, typer.Argument(help="Folder with NIH's table, both official lists and the films below it.")],
    run: Annotated[Path, typer.Option(help="Folder for checkpoints and caches; the same folder goes on.")],
    bundle: Annotated[Path, typer.Option(help="Folder the bundle is written to.")],
    minutes: Annotated[float, typer.Option(help="For all stages together.")] = 60.0,
    teacher: Annotated[Path | None, typer.Option(help="CSV of soft targets: Image Index, prob_<label>, ...")] = None,
    name: Annotated[str, typer.Option(help="Of the bundle.")] = "trained",
    version: Annotated[str, typer.Option(help="Of the bundle.")] = "0.1.0",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Index, split, cache, train in stages, calibrate, evaluate on the test list, export."""
    from training.flow import Order, train

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        train(
            Order(
                nih=nih,
                run=run,
                bundle=bundle,
                minutes=minutes,
                teacher=teacher,
                name=name,
                version=version,
                seed=seed,
            ),
            progress,
        )
