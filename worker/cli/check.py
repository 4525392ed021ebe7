"""`hilum check` and `hilum migrate`: is everything in its place?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from schemas.errors import HilumError
from worker.cli.options import ConfigOption, clear_errors, console, plain, settings_from

if TYPE_CHECKING:
    from worker.settings import Settings


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
    """Prove configuration, decoders, model, database, spool and every destination. Exit 1 when anything is wrong."""
    settings = settings_from(config)
    console.print("[green]ok  [/] configuration")
    faults = 0
    for name, prove in _checks(settings):
        try:
            words = prove()
        except HilumError as error:
            faults += 1
            console.print(f"[bold red]FAIL[/] {name}: {plain(error)}", highlight=False, soft_wrap=True)
        else:
            console.print(f"[green]ok  [/] {name}: {plain(words)}", highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)


@clear_errors
def migrate(config: ConfigOption = None) -> None:
    """Bring the database's tables to this version (creates an SQLite file where there is none)."""
    from worker.assemble import database

    db = database(settings_from(config))
    db.migrate()
    db.close()
    console.print("tables are up to date")
