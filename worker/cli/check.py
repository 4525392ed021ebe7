"""`hilum check` and `hilum migrate`: is everything in its place?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import typer

from schemas.errors import ConfigurationError, HilumError
from worker.cli.options import ConfigOption, clear_errors, console, plain, settings_from

if TYPE_CHECKING:
    from worker.settings import Settings


class Doubt(Exception):
    """Neither proven nor a fault; the message is for a person."""


def opens(section: str, host: str, port: int) -> str:
    """Whether this port can be listened on now; words for a person.

    Raises
    ------
    Doubt
        It is in use, or not for this account: either is as it should be where the worker runs already, or as another.
    ConfigurationError
        It can never be.
    """
    if port == 0:
        return "any free port"
    where = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Doubt(f"{where} is in use (is hilum running already?)") from error
        if error.errno == errno.EACCES:
            raise Doubt(f"{where} is not for this account to open; the one that hilum runs as may need to") from error
        raise ConfigurationError(f"{where} cannot be opened ({error.strerror}): mend [{section}] host") from error
    return f"{where} is free"


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    from worker import assemble
    from worker.decide.policy import thresholds
    from worker.decode.selftest import usable_transfer_syntaxes
    from worker.spool.local import LocalSpool

    def model() -> str:
        bundle = assemble.bundle(settings)
        thresholds(settings.policy.policy(), bundle.card.thresholds)
        engine = assemble.engine(settings, bundle)
        engine.close()
        return f"{bundle.card.name} {bundle.card.version} ({bundle.model_id}), golden vectors replayed"

    def database() -> str:
        db = assemble.database(settings)
        try:
            db.check()
        finally:
            db.close()
        return "reachable, tables up to date"

    def spool() -> str:
        local = LocalSpool(settings.spool.path, watermark_bytes=settings.spool.watermark_mib << 20)
        return f"{local.free_bytes() / 2**30:.1f} GiB free, watermark {settings.spool.watermark_mib / 1024:.1f} GiB"

    yield "decoders", lambda: f"{len(usable_transfer_syntaxes())} transfer syntaxes decode"
    yield "model", model
    yield "database", database
    yield "spool", spool
    for section, door in settings.doors().items():
        yield f"port of [{section}]", partial(opens, section, door.host, door.port)
    for destination in settings.destinations:

        def reach(d: object = destination) -> str:
            channel = assemble.channel(d, settings)  # type: ignore[arg-type]
            try:
                return channel.check()
            finally:
                channel.close()

        yield f"destination {destination.name}", reach


@clear_errors
def check(config: ConfigOption = None) -> None:
    """Prove configuration, decoders, model, database, spool, ports and every destination. Exit 1 when any is wrong.

    A port that is in use is no fault: while the worker runs, that is the worker.
    """
    settings = settings_from(config)
    console.print("[green]ok  [/] configuration")
    faults = 0
    for name, prove in _checks(settings):
        try:
            words = prove()
        except Doubt as doubt:
            _say("[yellow]note[/]", name, doubt)
        except HilumError as error:
            faults += 1
            _say("[bold red]FAIL[/]", name, error)
        else:
            _say("[green]ok  [/]", name, words)
    if faults:
        raise typer.Exit(1)


def _say(mark: str, name: str, words: object) -> None:
    console.print(f"{mark} {plain(f'{name}: {words}')}", highlight=False, soft_wrap=True)


@clear_errors
def migrate(config: ConfigOption = None) -> None:
    """Bring the database's tables to this version (creates an SQLite file where there is none)."""
    from worker.assemble import database

    db = database(settings_from(config))
    db.migrate()
    db.close()
    console.print("tables are up to date")
