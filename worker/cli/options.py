"""What every command shares: the configuration option, and errors as one clear message instead of a traceback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from schemas.errors import ConfigurationError, HilumError
from worker.settings import Settings, load

DEFAULT = Path("hilum.toml")

P = ParamSpec("P")
R = TypeVar("R")

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


def until_told_to_stop() -> threading.Event:
    """Set by SIGTERM and Ctrl-C. Wait for it in small steps: `sleep_until(event)`."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def sleep_until(event: threading.Event) -> None:
    """Block until `event` is set.

    In steps, for Python runs signal handlers in the main thread alone: a signal that the system gives to another thread
    does not wake a main thread that waits without end (seen with one SIGTERM in six).
    """
    while not event.wait(0.5):
        pass


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
