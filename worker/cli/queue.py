"""`hilum requeue` and `hilum replay`: read again, tell again."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from schemas.lifecycle import JobState, OutboxState
from worker.cli.options import ConfigOption, clear_errors, console, settings_from


class Replayable(StrEnum):
    """What can be sent again."""

    REFUSED = OutboxState.REFUSED.value
    SENT = OutboxState.SENT.value


@clear_errors
def requeue(
    config: ConfigOption = None,
    study: Annotated[str | None, typer.Option("--study", help="Only this Study Instance UID.")] = None,
    state: Annotated[
        list[JobState] | None,
        typer.Option(help="Only films in this state (may be given more than once). Default: failed."),
    ] = None,
) -> None:
    """Put films back into the queue, to be read again by the model in service.

    A result that comes out the same is not sent again; a different one is a new revision.
    """
    from worker.assemble import database, now
    from worker.record.jobs import Jobs

    db = database(settings_from(config))
    db.check()
    count = Jobs(db).requeue(study, state or [JobState.FAILED], now())
    console.print(f"{count} film(s) back in the queue")


@clear_errors
def replay(
    config: ConfigOption = None,
    destination: Annotated[str | None, typer.Option(help="Only this destination.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="Only this Study Instance UID.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only flags decided since then (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only flags decided before then (UTC).")] = None,
    state: Annotated[
        list[Replayable] | None, typer.Option(help="Only what was refused, or only what was sent. Default: both.")
    ] = None,
) -> None:
    """Send flags again: what was refused, or what a destination has lost. The same flag is the same object there."""
    from datetime import UTC

    from worker.assemble import database
    from worker.record.outbox import Outbox

    if (destination, study, since, until) == (None,) * 4:
        raise ConfigurationError("say what to replay: --destination, --study, --since or --until")
    settings = settings_from(config)
    names = [d.name for d in settings.destinations]
    if destination is not None and destination not in names:
        raise ConfigurationError(f"--destination: {destination!r} is not configured; there are: {', '.join(names)}")
    db = database(settings)
    db.check()
    start, end = (None if at is None else at.replace(tzinfo=UTC) for at in (since, until))
    states = [OutboxState(s.value) for s in state or Replayable]
    console.print(f"{Outbox(db).replay(destination, study, start, end, states)} flag(s) will be sent again")
