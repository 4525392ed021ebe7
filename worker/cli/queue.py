"""`hilum requeue` and `hilum replay`: read again, tell again. Exit 1 when what was asked for matches nothing."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from schemas.errors import ConfigurationError, RecordError
from schemas.lifecycle import JobState, OutboxState
from worker.cli.options import ConfigOption, clear_errors, say, settings_from
from worker.cli.worklist import story_of


class Requeueable(StrEnum):
    """What can be read again; other films are in the queue already."""

    FAILED = JobState.FAILED.value
    NOT_ANALYSED = JobState.NOT_ANALYSED.value
    READ = JobState.READ.value


class Replayable(StrEnum):
    """What can be sent again."""

    REFUSED = OutboxState.REFUSED.value
    SENT = OutboxState.SENT.value


@clear_errors
def requeue(
    config: ConfigOption = None,
    study: Annotated[str | None, typer.Option("--study", help="Only this Study Instance UID.")] = None,
    state: Annotated[
        list[Requeueable] | None,
        typer.Option(help="Only films in this state (may be given more than once). Default: failed."),
    ] = None,
) -> None:
    """Put films back into the queue, to be read again by the model in service.

    A result that comes out the same is not sent again; a different one is a new revision. Exit 1 when --study or
    --state matches nothing; without them, that nothing has failed is no fault.
    """
    from worker.assemble import database, now
    from worker.record.jobs import Jobs

    db = database(settings_from(config))
    db.check()
    if study is not None:
        story_of(db, study)
    states = [JobState(s.value) for s in state or [Requeueable.FAILED]]
    count = Jobs(db).requeue(study, states, now())
    if count:
        say(f"{count} film(s) back in the queue")
        return
    whose = "" if study is None else f" of study {study}"
    words = f"nothing to read again: no film{whose} that is still kept is in state {' or '.join(states)}"
    if study is not None or state:
        raise RecordError(f"{words}; --state chooses others")
    say(words)


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
    """Send flags again: what was refused, or what a destination has lost. The same flag is the same object there.

    Exit 1 when nothing matches.
    """
    from datetime import UTC

    from worker.assemble import database
    from worker.record.outbox import Outbox

    if (destination, study, since, until) == (None,) * 4:
        raise ConfigurationError("say what to replay: --destination, --study, --since or --until")
    settings = settings_from(config)
    names = [d.name for d in settings.destinations]
    if destination is not None and destination not in names:
        raise ConfigurationError(
            f"--destination: {destination!r} is not configured; there are: {', '.join(names) or 'none'}"
        )
    db = database(settings)
    db.check()
    if study is not None:
        story_of(db, study)
    start, end = (None if at is None else at.replace(tzinfo=UTC) for at in (since, until))
    states = [OutboxState(s.value) for s in state or Replayable]
    count = Outbox(db).replay(destination, study, start, end, states)
    if not count:
        raise RecordError(
            f"nothing matches: no such flag is in state {' or '.join(states)}; `hilum report queue` shows what waits "
            "and what was refused, `hilum results STUDY_UID` what became of one study's flags"
        )
    say(f"{count} flag(s) will be sent again")
