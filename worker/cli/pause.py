"""`hilum pause` and `hilum resume`: hold flags back, in every worker at once, and let them go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigurationError, RecordError
from worker.cli.options import ConfigOption, clear_errors, say, settings_from
from worker.cli.runs import user

if TYPE_CHECKING:
    from worker.record.database import Database

Because = Annotated[str, typer.Option(help="Why: whoever reads the list is told.", show_default=False)]


@clear_errors
def pause(because: Because, config: ConfigOption = None) -> None:
    """Hold flags back: no destination is told of a new one until `hilum resume`.

    Films are received, read and listed as ever, and flags that are out can still be taken back. Every worker heeds it
    within a second. Exit 1 when flags are paused already.
    """
    from worker.assemble import now
    from worker.record.pauses import Pauses

    why = " ".join(because.split())
    if not why:
        raise ConfigurationError("--because: say why; whoever reads the list is told")
    db = _database(config)
    if not Pauses(db).pause(_who(), why, now()):
        raise RecordError("flags are paused already; the page Watching says by whom")
    _note(db, "paused flags", why=why)
    say("flags are paused: what is decided waits until `hilum resume`")


@clear_errors
def resume(because: Because = "", config: ConfigOption = None) -> None:
    """Let flags go: what still holds is told, the most urgent first; what was read or taken back meanwhile is not.

    Exit 1 when flags are not paused.
    """
    from worker.assemble import now
    from worker.record.pauses import Pauses

    db = _database(config)
    why = " ".join(because.split())
    if not Pauses(db).resume(_who(), why, now()):
        raise RecordError("flags are not paused")
    _note(db, "resumed flags", because=why)
    say("flags go out again")


def _database(config: Path | None) -> Database:
    from worker.assemble import database

    db = database(settings_from(config))
    db.check()
    return db


def _who() -> str:
    from worker.record.audit import COMMAND_LINE

    return f"{user()}, {COMMAND_LINE}"


def _note(db: Database, action: str, **detail: str) -> None:
    from worker.assemble import now
    from worker.record.audit import COMMAND_LINE, Audit

    Audit(db).note(COMMAND_LINE, action, now(), detail={"account": user(), **detail})
