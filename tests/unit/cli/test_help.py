"""`--help` shows all that the authors of the commands wrote: none of it is taken for markup. Over all commands."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from worker.cli.main import app

WIDE = {"COLUMNS": "4000", "TERMINAL_WIDTH": "4000"}

everything = typer.Typer(rich_markup_mode=app.rich_markup_mode)
everything.add_typer(app, name="hilum")
for entry in entry_points(group="hilum.commands"):
    everything.command(name=entry.name)(entry.load())


def tree(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from tree(part, (*path, name))


COMMANDS = dict(tree(typer.main.get_command(everything)))


def written(command: Any) -> list[str]:
    """Its paragraphs. Backquotes say how a word is to look, and are not shown."""
    options = [parameter for parameter in command.params if not parameter.hidden]
    texts = [command.help, *(option.help for option in options)]
    paragraphs = [paragraph for text in texts if text for paragraph in text.split("\n\n")]
    return [" ".join(paragraph.replace("`", "").split()) for paragraph in paragraphs]


def test_there_is_something_to_lose() -> None:
    assert any("([hl7] in" in words for words in written(COMMANDS["hilum", "second-look"]))
    assert any("[[destinations]]" in words for words in written(COMMANDS["hilum", "try-policy"]))
    assert {("train",), ("trainer",), ("hilum", "runs", "request")} <= COMMANDS.keys()


def test_it_may_be_asked_for_in_short() -> None:
    long, short = (CliRunner().invoke(app, ["report", "queue", word]).output for word in ("--help", "-h"))
    assert "Every destination" in short
    assert short == long


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_word_is_shown(path: tuple[str, ...]) -> None:
    run = CliRunner().invoke(everything, [*path, "--help"], env=WIDE)
    assert run.exit_code == 0, run.output
    shown = " ".join(run.output.split())
    for words in written(COMMANDS[path]):
        assert words in shown
