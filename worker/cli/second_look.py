"""`hilum second-look`: where the signed report and the model say otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.context import Verdict
from schemas.errors import RecordError
from worker.cli.options import ConfigOption, clear_errors, console, say, settings_from

if TYPE_CHECKING:
    from worker.record.second_look import SecondLook


@clear_errors
def second_look(
    done: Annotated[
        str | None,
        typer.Option(metavar="STUDY_UID", help="Somebody looked: off the list.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and study.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many studies.")] = 50,
) -> None:
    """Studies whose signed report and model disagree, the oldest report first.

    Either the model raised a film and the report names nothing, or the report names what the model did not see. Which
    of the two is right the list does not say. Reports come in by HL7 ([hl7] in the configuration).
    """
    from worker.assemble import database, now
    from worker.record.second_look import SecondLooks

    db = database(settings_from(config))
    db.check()
    looks = SecondLooks(db)
    if done is not None:
        if not looks.done(done, now()):
            raise RecordError(f"study {done} is not on the list; `hilum second-look` shows what is")
        console.print("marked as seen")
        return
    rows = looks.rows(limit)
    if as_json:
        for row in rows:
            print(json.dumps(_plain(row)), flush=True)  # noqa: T201  for programs
        return
    for row in rows:
        say(_words(row))
    if not rows:
        console.print("no study is on the list")
    console.print(
        "A study that is not here is not an all-clear: of many reports the verdict is not known. "
        "`--done STUDY_UID` takes one off that was looked at.",
        style="dim",
    )


def _words(row: SecondLook) -> str:
    """On a few lines, none of them a table's: a UID is whole, however narrow the terminal."""
    of = (("patient", row.patient_id), ("accession", row.accession_number))
    who = ", ".join(f"{what} {' '.join(value.split())}" for what, value in of if value)
    return (
        f"{row.said_at.astimezone():%Y-%m-%d %H:%M}  {who}\n"
        f"  report  {row.report} ({', '.join(row.findings) or row.rule})\n"
        f"  model   {'; '.join(row.model_words) or _model(row)}\n"
        f"  study   {row.study_uid}\n"
    )


def _model(row: SecondLook) -> str:
    return "nothing at its threshold" if row.model is Verdict.NEGATIVE else "nothing raised"


def _plain(row: SecondLook) -> dict[str, object]:
    return {
        "study_uid": row.study_uid,
        "accession_number": row.accession_number,
        "patient_id": row.patient_id,
        "report": row.report,
        "report_rule": row.rule,
        "report_findings": list(row.findings),
        "report_id": row.report_id,
        "corrected": row.corrected,
        "model": row.model,
        "model_words": list(row.model_words),
        "said_at": row.said_at.isoformat(),
        "received_at": row.received_at.isoformat(),
    }
