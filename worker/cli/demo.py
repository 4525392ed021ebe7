"""`hilum demo`: the whole corridor on one machine, with phantoms for patients and a small PACS to hear of them."""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigurationError
from schemas.lifecycle import OutboxState, StudyState
from worker.cli import worklist
from worker.cli.options import Stop, clear_errors, console, plain
from worker.settings import Settings, SrDestination, load

if TYPE_CHECKING:
    from worker.assemble import Worker


def free_port(host: str, wanted: int) -> int:
    """`wanted` when nobody listens there, else one that the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


CONFIG = """\
# Written by `hilum demo`; every command takes it with --config.
[dicom]
port = {dicom}

[database]
url = "sqlite:///{folder}/hilum.db"

[spool]
path = "{folder}/spool"
watermark_mib = 256

[web]
port = {web}

[reading]
quiet_seconds = 30

[[destinations]]
name = "pacs"
kind = "dicom-sr"
when = "analysed"
ae_title = "PACS"
port = {pacs}
"""


def write_config(folder: Path) -> Path:
    """`hilum.toml` for this run in `folder`, on the usual ports where they are free."""
    host = "127.0.0.1"
    config = folder / "hilum.toml"
    ports = {"dicom": free_port(host, 11112), "web": free_port(host, 8080), "pacs": free_port(host, 11113)}
    config.write_text(CONFIG.format(folder=folder.resolve(), **ports), encoding="utf-8")
    return config


@clear_errors
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its files.")] = Path("var/demo"),
    once: Annotated[
        bool, typer.Option("--once", help="Send the phantoms, wait for their flags, print, and end.")
    ] = False,
) -> None:
    """Start everything on this machine: worker, page, a receiving PACS; send phantom studies; show where to look.

    The films are drawn by code: nobody's patient data is used. Ctrl-C ends it; run it again and it goes on.
    """
    with _alone(folder):
        _run(folder, write_config(folder), once=once)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One demonstration at a time in a folder. Raises `ConfigurationError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"a demonstration runs in {folder} already; end it, or choose another --folder"
            ) from None
        yield


def _run(folder: Path, config: Path, *, once: bool) -> None:
    from worker.assemble import Worker, database
    from worker.desk import first_link
    from worker.simulate import modality, phantom
    from worker.simulate.pacs import Pacs
    from worker.watch.logs import configure

    settings = load(config)
    database(settings).migrate()
    configure("WARNING")
    stopping = Stop()
    (destination,) = settings.destinations
    assert isinstance(destination, SrDestination)  # noqa: S101  CONFIG says so
    pacs = Pacs(folder / "pacs", ae_title="PACS", host="127.0.0.1", port=destination.port)
    pacs.start()
    with console.status("loading the models"):
        worker = Worker(settings)
        worker.start()
    try:
        # Drawn once: the same films again are known again, and the list does not grow with every start.
        films = sorted((folder / "films").glob("*.dcm")) or phantom.write_demo_films(folder / "films")
        dicom = settings.dicom
        sent = modality.send(films, dicom.ae_title, dicom.host, dicom.port, "PHANTOM-CR")
        faults = [s for s in sent if s.error]
        for s in faults:
            console.print(f"[red]not taken[/] {s.path.name}: {plain(s.error)}", highlight=False)
        link = first_link(worker.database, f"http://{settings.web.host}:{settings.web.port}")
        _show(settings, config, pacs.folder, len(sent) - len(faults), link)
        if once:
            _wait_for_flags(worker)
            worklist.worklist(config)
        else:
            stopping.wait()
            console.print(f"stopping; everything is kept in {folder}", highlight=False)
    finally:
        worker.stop()
        pacs.stop()


def _wait_for_flags(worker: Worker, timeout: float = 120.0) -> None:
    """Until every film is settled and every flag is delivered."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        reading = any(row.state is StudyState.RECEIVING for row in worker.worklist.rows(100))
        states = [s for counts in worker.outbox.counts().values() for s, n in counts.items() if n]
        if not reading and not {OutboxState.PENDING, OutboxState.SENDING} & set(states):
            return
        time.sleep(0.1)


def _show(settings: Settings, config: Path, pacs: Path, taken: int, link: str) -> None:
    dicom, web = settings.dicom, settings.web
    address = f"http://{web.host}:{web.port}/"
    enter = f"enter, the first time  {link}" if link else f"the worklist           {address}"
    peer = f"{dicom.ae_title}@{dicom.host}:{dicom.port}"
    console.print(
        f"""
[bold]hilum is running.[/] {taken} phantom films were sent by C-STORE; their flags are on the worklist.

  {enter}
  or in a terminal       .venv/bin/hilum worklist --config {config}
  send your own films    .venv/bin/hilum send FILE_OR_FOLDER --to {peer}
                         dcmsend -aec {dicom.ae_title} {dicom.host} {dicom.port} FILE
  score without sending  .venv/bin/hilum predict FILE
  what the PACS got      {pacs}

The models are a demonstration: trained for an hour, they raise nearly every film. Not a medical device; a film without
a flag is not an all-clear. Ctrl-C ends it.
""",
        highlight=False,
        soft_wrap=True,
    )
