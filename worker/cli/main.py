"""`hilum`: every command, and those that other packages add through the entry point group `hilum.commands`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from worker import __version__
from worker.cli import check, demo, predict, queue, send, serve, worklist
from worker.cli.options import console

app = typer.Typer(
    name="hilum",
    help="Receives chest X-rays by DICOM, reads them, and raises the urgent ones on the radiologist's worklist. "
    "Not a medical device: it never removes a film from the list, and a film without a flag is not an all-clear.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may hold patient data
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


app.command()(serve.serve)
app.command()(demo.demo)
app.command()(send.send)
app.command()(predict.predict)
app.command()(worklist.worklist)
app.command()(worklist.results)
app.command()(check.check)
app.command()(check.migrate)
app.command()(queue.requeue)
app.command()(queue.replay)


def main() -> None:
    """Entry point of the `hilum` command."""
    for entry in entry_points(group="hilum.commands"):
        app.add_typer(entry.load(), name=entry.name)
    app()
