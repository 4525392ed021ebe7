"""What every command shares: the configuration option, and errors as one clear message instead of a traceback."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.errors import ConfigurationError, HilumError
from worker.settings import Settings, load

DEFAULT = Path("hilum.toml")

P = ParamSpec("P")
R = TypeVar("R")

_ANY_WIDTH = 1 << 20

console = Console()
complaints = Console(stderr=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file; `hilum.toml` in this folder when there is one, else built-in defaults. "
        "Environment variables such as HILUM_DICOM__PORT come before it.",
        show_default=False,
    ),
]


def plain(words: object) -> str:
    """Words that others chose, fit for a terminal: no markup ("[policy]" is none of ours), no control character."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(words)))


def say(words: object) -> None:
    """Print words that others may have chosen; a long line stays one, so that what stands in it can be copied."""
    console.print(plain(words), highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table with nothing of it cut: a terminal folds long words, elsewhere lines are as long as need be.

    One without rows is not printed: callers say what that means.
    """
    if not table.rows:
        return
    for column in table.columns:
        column.overflow = "fold"
    if console.is_terminal:
        console.print(table)
    else:
        needed = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).maximum
        Console(file=console.file, width=max(console.width, needed)).print(table)


class Stop:
    """Set by SIGTERM and Ctrl-C, from when it is made.

    A flag, not an Event: a second signal may come while the first is being handled, and would wait for a lock that the
    same thread holds. And looked at in steps: a signal that the system gives to another thread does not wake a main
    thread that waits without end.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def wait(self) -> None:
        """Block until it is asked for."""
        while not self._asked:
            time.sleep(0.2)


def settings_from(config: Path | None) -> Settings:
    """The settings a command runs by."""
    return load(config or (DEFAULT if DEFAULT.exists() else None))


def clear_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print a `HilumError` as its message: exit 2 for the configuration, 1 for the rest."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except HilumError as error:
            complaints.print(f"[bold red]hilum:[/] {plain(error)}", highlight=False, soft_wrap=True)
            raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from error

    return run
