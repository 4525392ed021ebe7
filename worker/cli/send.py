"""`hilum send`: a modality for one's own films."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.errors import ConfigurationError
from worker.cli.options import ConfigOption, clear_errors, complaints, console, plain, settings_from


def parse_peer(text: str) -> tuple[str, str, int]:
    """`AET@HOST:PORT` -> its three parts (an IPv6 host in brackets). Raises `ConfigurationError`."""
    ae_title, at, rest = text.partition("@")
    host, colon, port = rest.rpartition(":")
    named = at and ae_title.strip() and len(ae_title.strip()) <= 16
    placed = colon and host and port.isdecimal() and 0 < int(port) < 1 << 16
    if not (named and placed):
        raise ConfigurationError(f"{text!r}: say it as AET@HOST:PORT, for example HILUM@127.0.0.1:11112")
    return ae_title.strip(), host.strip("[]"), int(port)


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and all files in the folders named, in a lasting order."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path


@clear_errors
def send(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="DICOM files, or folders of them.", exists=True)],
    config: ConfigOption = None,
    to: Annotated[
        str | None, typer.Option(help="Where to; default: the configured listener.", metavar="AET@HOST:PORT")
    ] = None,
    calling: Annotated[str, typer.Option(help="Calling AE title.")] = "HILUM-SEND",
) -> None:
    """Send films by C-STORE, each in its own transfer syntax, as a modality does. Exit 1 when any was not taken."""
    from worker.simulate import modality

    dicom = settings_from(config).dicom
    ae_title, host, port = parse_peer(to or f"{dicom.ae_title}@{dicom.host}:{dicom.port}")
    paths = list(files_below(files))
    if not paths:
        raise ConfigurationError("no files there")
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = complaints.is_terminal
    with Progress(*columns, console=complaints, transient=True, disable=not shown) as progress:
        task = progress.add_task("sending", total=len(paths))
        sent = modality.send(paths, ae_title, host, port, calling, on_progress=lambda _: progress.advance(task))
    failed = [s for s in sent if s.error]
    for s in failed:
        complaints.print(f"[red]not taken[/] {plain(s.path)}: {plain(s.error)}", highlight=False, soft_wrap=True)
    console.print(f"{len(sent) - len(failed)} of {len(sent)} file(s) taken by {ae_title}@{host}:{port}")
    if failed:
        raise typer.Exit(1)
