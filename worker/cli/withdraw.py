"""`hilum withdraw`: take a flag back."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import ConfigurationError, RecordError
from schemas.flag import Withdrawal
from worker.cli.options import ConfigOption, clear_errors, say, settings_from
from worker.cli.worklist import story_of


@clear_errors
def withdraw(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.", show_default=False)
    ] = None,
    because: Annotated[
        Withdrawal,
        typer.Option(
            help="person: somebody looked and decided so. patient: the films are not this patient's. model: the model "
            "that raised it was recalled. reported: it has been reported, and leaves the worklist."
        ),
    ] = Withdrawal.PERSON,
    model: Annotated[
        str | None,
        typer.Option(help="Every open study that this model raised (its id, as `hilum models list` shows it)."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Take back the flag of a study, or of all that a recalled model raised.

    Whoever was told of the flag is told that it is withdrawn, in its own dialect. The study goes back to its standing
    order: that is no all-clear. What its films have said raises it no more; a later film may. Exit 1 when there is
    nothing to take back.
    """
    from worker.assemble import database, now, route
    from worker.record.studies import Studies, one, raised_by

    if (study is None) == (model is None):
        raise ConfigurationError("say what to withdraw: a Study Instance UID, or --model")
    settings = settings_from(config)
    db = database(settings)
    db.check()
    studies, tell = Studies(db), route(settings)
    if study is not None:
        story_of(db, study)
        count = studies.withdraw(one(study), because, tell, now())
        if count:
            say(f"the flag of {study} is withdrawn; whoever was told of it will be told so")
        elif because is Withdrawal.REPORTED:  # off the worklist, flag or none
            say(f"{study} counts as reported; no flag of it was out")
        else:
            raise RecordError(f"nothing to withdraw: no flag of {study} is out; `hilum results {study}` says why")
        return
    count = studies.withdraw(raised_by(str(model)), Withdrawal.MODEL, tell, now())
    if not count:
        raise RecordError(
            f"nothing to withdraw: model {model} has raised no study that is open; --model takes the id in the column "
            "model of `hilum models list`, not a name"
        )
    say(f"{count} flag(s) withdrawn; whoever was told of them will be told so")
