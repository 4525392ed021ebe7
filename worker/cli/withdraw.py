"""`hilum withdraw`: take a flag back."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from schemas.flag import Withdrawal
from worker.cli.options import ConfigOption, clear_errors, console, plain, settings_from


@clear_errors
def withdraw(
    study: Annotated[str | None, typer.Argument(help="Study Instance UID.", show_default=False)] = None,
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
    order: that is no all-clear. What its films have said raises it no more; a later film may.
    """
    from worker.assemble import database, now, route
    from worker.record.studies import Studies, one, raised_by

    if (study is None) == (model is None):
        raise ConfigurationError("say what to withdraw: a Study Instance UID, or --model")
    settings = settings_from(config)
    db = database(settings)
    db.check()
    which = one(str(study)) if model is None else raised_by(model)
    why = because if model is None else Withdrawal.MODEL
    count = Studies(db).withdraw(which, why, route(settings), now())
    if not count and study is not None:
        console.print(f"nothing to withdraw: no flag of {plain(study)} is out")
        raise typer.Exit(1)
    console.print(f"{count} flag(s) withdrawn; whoever was told of them will be told so")
