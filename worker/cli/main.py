"""`hilum`: every command, and those that other packages add through the entry point group `hilum.commands`."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from worker import __version__
from worker.cli import (
    calendar,
    check,
    conformance,
    demo,
    models,
    pause,
    people,
    policy,
    predict,
    queue,
    registry,
    report,
    runs,
    second_look,
    send,
    serve,
    try_policy,
    withdraw,
    worklist,
)
from worker.cli.options import clear_errors, console

app = typer.Typer(
    name="hilum",
    help="Receives chest X-rays by DICOM, reads them, and raises the urgent ones on the radiologist's worklist. "
    "Not a medical device: it never removes a film from the list, and a film without a flag is not an all-clear.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="markdown",  # in Rich's own a [section] of the configuration is taken for a tag, and not shown
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
app.command()(conformance.conformance)
app.command()(queue.requeue)
app.command()(queue.replay)
app.command()(pause.pause)
app.command()(pause.resume)
app.command()(try_policy.try_policy)
app.command()(withdraw.withdraw)
app.command(name="second-look")(second_look.second_look)


registry.attach(models.app)
app.add_typer(models.app, name="models")
app.add_typer(people.app, name="people")
runs.app.add_typer(calendar.app, name="calendar")
app.add_typer(runs.app, name="runs")
app.add_typer(policy.app, name="policy")
app.add_typer(report.app, name="report")


def add(entry: EntryPoint) -> None:
    """Add what an entry point offers: a Typer application with commands of its own, or the function of one command.

    One that cannot be imported says so when it is called; the worker's own commands are not its hostages.
    """
    try:
        offered = entry.load()
    except (ImportError, AttributeError) as error:
        words = f"hilum {entry.name}: {error}; pip install 'hilum[train]' brings what training needs"

        @app.command(name=entry.name, help="Not installed in full.", context_settings={"ignore_unknown_options": True})
        @clear_errors
        def _lacking(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
            raise ConfigurationError(words)

        return
    if isinstance(offered, typer.Typer):
        app.add_typer(offered, name=entry.name)
    else:
        app.command(name=entry.name)(offered)


def _own() -> set[str]:
    """Names of the commands that are ours."""
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return named | {group.name for group in app.registered_groups if group.name}


def main() -> None:
    """Entry point of the `hilum` command."""
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if wanted not in _own():  # `hilum serve` need not load what training is made of
        for entry in entry_points(group="hilum.commands"):
            add(entry)
    app()
