"""`hilum runs calendar`: training runs that are asked for again and again. `hilum serve` asks, in its upkeep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from schemas.errors import RecordError
from worker.cli.options import ConfigOption, clear_errors, console, plain, print_table, settings_from
from worker.cli.runs import JsonOption, user

if TYPE_CHECKING:
    from worker.record.retrainings import Retrainings

app = typer.Typer(
    no_args_is_help=True,
    help="Training runs that are asked for again and again.\n\n"
    "A run that was missed is asked for once, and none while the one before has not finished.",
)


class _Office:
    """The calendar and the trail, of the configured database."""

    def __init__(self, config: Path | None) -> None:
        from worker.assemble import database
        from worker.record.audit import Audit
        from worker.record.retrainings import Retrainings

        db = database(settings_from(config))
        db.check()
        self.retrainings: Retrainings = Retrainings(db)
        self._audit = Audit(db)

    def note(self, action: str, **detail: Any) -> None:
        """Into the trail."""
        from worker.assemble import now
        from worker.record.audit import COMMAND_LINE

        self._audit.note(COMMAND_LINE, action, now(), detail={"account": user(), **detail})


@app.command(name="list")
@clear_errors
def list_entries(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What is asked for regularly, the next first."""
    entries = _Office(config).retrainings.list()
    if as_json:
        for entry in entries:
            print(json.dumps(entry.to_json()), flush=True)  # noqa: T201  for programs
        return
    table = Table("id", "name", "next", "rhythm", "of", "films", "last run", box=None)
    for entry in entries:
        table.add_row(
            str(entry.id),
            plain(entry.name),
            f"{entry.next_at:%Y-%m-%d %H:%M} UTC",
            entry.cron,
            plain(entry.preset or "a TOML file"),
            plain(entry.data),
            "" if entry.last_run is None else str(entry.last_run),
        )
    print_table(table)
    if not entries:
        console.print("nothing is asked for regularly; `hilum runs calendar add --help` says how")


@app.command()
@clear_errors
def add(
    cron: Annotated[
        str,
        typer.Option(
            help="Minute, hour, day, month, weekday (mon, tue, ...), by UTC. "
            "`0 2 1-7 * sun` is the first Sunday of each month at 02:00."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder of NIH's films and table, as the trainer's machine knows it.")],
    preset: Annotated[str, typer.Option(help="Name of a preset of `hilum train`.", metavar="NAME")],
    name: Annotated[str, typer.Option(help="Of its runs, with their date behind it. Default: the preset's.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a run again and again."""
    from worker.assemble import now
    from worker.upkeep.calendar import next_time

    office, at = _Office(config), now()
    entry = office.retrainings.add(
        name=name or preset,
        cron=cron,
        preset=preset,
        data=str(data.absolute()),
        made_by=user(),
        now=at,
        next_at=next_time(cron, at),
    )
    office.note("put a training run into the calendar", entry=entry.id, name=entry.name, cron=cron, preset=preset)
    if as_json:
        print(json.dumps(entry.to_json()))  # noqa: T201  for programs
    else:
        console.print(f"entry {entry.id}: next at {entry.next_at:%Y-%m-%d %H:%M} UTC", highlight=False)


@app.command()
@clear_errors
def remove(
    entry: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="As `list` shows it.")],
    config: ConfigOption = None,
) -> None:
    """Take it off the calendar; its runs stay."""
    office = _Office(config)
    gone = office.retrainings.remove(entry)
    if gone is None:
        raise RecordError(f"entry {entry} is not in the calendar; `hilum runs calendar list` shows those that are")
    office.note("took a training run off the calendar", entry=entry, name=gone.name, cron=gone.cron)
    console.print(f"{plain(gone.name)} is off the calendar", highlight=False)
