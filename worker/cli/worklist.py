"""`hilum worklist` and `hilum results`: what the page shows, in a terminal."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from schemas.decision import Urgency
from schemas.errors import RecordError
from schemas.flag import WITHDRAWN
from schemas.not_analysed import WORDS
from worker.cli.options import ConfigOption, clear_errors, console, print_table, settings_from

if TYPE_CHECKING:
    from worker.record.database import Database
    from worker.record.worklist import WorklistRow

STYLE = {Urgency.STAT: "bold white on red", Urgency.URGENT: "bold black on yellow", Urgency.ROUTINE: "dim"}


def waited(since: datetime, now: datetime) -> str:
    """For a person: "41 min"."""
    minutes = int((now - since).total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _why(row: WorklistRow) -> list[str]:
    withdrawn = [] if row.withdrawn is None else [f"withdrawn: {WITHDRAWN[row.withdrawn]}"]
    return [*row.reasons, *([row.ordered] if row.ordered else []), *withdrawn]


@clear_errors
def worklist(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and study.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many studies.")] = 50,
) -> None:
    """The open studies in reading order: most urgent first, then longest waiting."""
    from worker.assemble import database, now
    from worker.record.worklist import Worklist

    db = database(settings_from(config))
    db.check()
    rows = Worklist(db).rows(limit)
    if as_json:
        for row in rows:
            print(  # noqa: T201  for programs
                json.dumps(
                    {
                        "study_uid": row.study_uid,
                        "urgency": row.urgency.name,
                        "reasons": list(row.reasons),
                        "order_urgency": row.order_urgency.name,
                        "state": row.state,
                        "not_analysed": list(row.not_analysed),
                        "received_at": row.received_at.isoformat(),
                        "decided_at": None if row.decided_at is None else row.decided_at.isoformat(),
                        "revision": row.revision,
                        "withdrawn": row.withdrawn,
                        "accession_number": row.accession_number,
                        "patient_id": row.patient_id,
                        "modality": row.modality,
                    }
                ),
                flush=True,
            )
        return
    table = Table(
        Column("urgency", no_wrap=True), "waited", "patient", "accession", "why", "not analysed", "state", box=None
    )
    for row in rows:
        table.add_row(
            Text(f" {row.urgency.name} ", STYLE[row.urgency]),
            waited(row.received_at, now()),
            Text(row.patient_name or row.patient_id),
            Text(row.accession_number),
            Text("\n".join(_why(row))),
            Text(", ".join(WORDS[code] for code in row.not_analysed)),
            str(row.state),
        )
    print_table(table)
    if not rows:
        console.print("no study is open")
    console.print(
        "A study without a flag waits in its standing order; the absence of a flag is not an all-clear. "
        "`--json` gives the study UIDs that `hilum results` takes.",
        style="dim",
    )


def story_of(db: Database, study_uid: str) -> dict[str, Any]:
    """Everything recorded of one study. Raises `RecordError` where there is nothing."""
    from worker.record.worklist import Worklist

    story = Worklist(db).results(study_uid)
    if story is None:
        raise RecordError(
            f"study {study_uid} is not known here; `hilum worklist --json` shows the UIDs of open studies"
        )
    return story


@clear_errors
def results(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for programs.")] = False,
) -> None:
    """Everything recorded of one study: films and versions, predictions with their times, revisions, deliveries."""
    from worker.assemble import database

    db = database(settings_from(config))
    db.check()
    story = story_of(db, study_uid)
    if as_json:
        print(json.dumps(story))  # noqa: T201  for programs
    else:
        console.print_json(data=story)
