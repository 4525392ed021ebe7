"""`hilum report`: how the delivery does, how long a flag takes, and both in the form that a simulator reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from schemas.errors import ConfigurationError
from schemas.lifecycle import OutboxState
from schemas.standing import Line, Standing
from worker.cli.options import ConfigOption, clear_errors, console, print_table, say, settings_from
from worker.cli.worklist import waited

if TYPE_CHECKING:
    from worker.record.outbox import Refusals
    from worker.record.times import FlagTimes

app = typer.Typer(no_args_is_help=True, help="How the delivery does, and how long a flag takes.")

PERCENTILES: Final = (50, 95, 99)
_MOST_REFUSALS: Final = 50
_LATE: Final = 5.0  # seconds after which a trial that was announced is missed

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs.")]
SinceOption = Annotated[datetime | None, typer.Option(help="From then on (UTC). Default: --days.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Until then (UTC). Default: now.")]
DaysOption = Annotated[float, typer.Option(min=0.001, max=36_500, help="So many days back.")]


class By(StrEnum):
    """What times are gathered by."""

    DESTINATION = "destination"
    HOUR = "hour"


def period(since: datetime | None, until: datetime | None, days: float) -> tuple[datetime, datetime]:
    """From and until, aware. Raises `ConfigurationError`."""
    end = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
    start = end - timedelta(days=days) if since is None else since.replace(tzinfo=UTC)
    if start >= end:
        raise ConfigurationError("--since must be earlier than --until")
    return start, end


@app.command()
@clear_errors
def queue(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every destination: whether it is up, what waits and since when; and what was refused, with the mend.

    Up: what was sent last went through. Resting: it failed just now, and is tried again after a moment. Down: it failed
    again and again, and is tried with one flag after longer and longer rests. Being tried: that is under way.
    """
    from worker.assemble import database, now
    from worker.record.destinations import Destinations
    from worker.record.outbox import Outbox

    settings = settings_from(config)
    db = database(settings)
    db.check()
    outbox = Outbox(db)
    counts, waiting, standings = outbox.counts(), outbox.waiting_since(), Destinations(db).standings()
    refusals = outbox.refusals(_MOST_REFUSALS)
    configured = [d.name for d in settings.destinations]
    rows = [
        _destination(name, counts.get(name, {}), waiting.get(name), standings.get(name), configured)
        for name in dict.fromkeys((*configured, *counts))
    ]
    if as_json:
        _print_lines(rows)
        _print_lines(map(_refusal, refusals))
        return
    _print_queue(rows, now())
    _print_refusals(refusals)


def _destination(
    name: str,
    counts: dict[OutboxState, int],
    waiting: datetime | None,
    standing: Standing | None,
    configured: list[str],
) -> dict[str, Any]:
    return {
        "destination": name,
        "configured": name in configured,
        "line": None if standing is None else standing.line.value,
        "failures": 0 if standing is None else standing.failures,
        "since": None if standing is None else standing.since.isoformat(),
        "next_trial_at": _iso(None if standing is None else standing.next_trial_at),
        "last_error": "" if standing is None else standing.last_error,
        "pending": counts.get(OutboxState.PENDING, 0),
        "sending": counts.get(OutboxState.SENDING, 0),
        "refused": counts.get(OutboxState.REFUSED, 0),
        "waiting_since": _iso(waiting),
    }


def _refusal(refusals: Refusals) -> dict[str, Any]:
    return {
        "destination": refusals.destination,
        "refused": refusals.flags,
        "urgency": refusals.urgency.name,
        "since": refusals.since.isoformat(),
        "last_error": refusals.words,
    }


def _print_queue(rows: list[dict[str, Any]], now: datetime) -> None:
    table = Table("destination", "state", "failures", "waiting", "for", "refused", box=None)
    for row in rows:
        table.add_row(
            Text(row["destination"]),
            _standing(row, now),
            str(row["failures"] or ""),
            str(row["pending"] + row["sending"] or ""),
            "" if row["waiting_since"] is None else waited(datetime.fromisoformat(row["waiting_since"]), now),
            str(row["refused"] or ""),
        )
    print_table(table)
    if not rows:
        say("no destination is configured: nobody is told of a flag ([[destinations]] in the configuration)")
    for row in rows:
        if row["last_error"]:
            say(f"{row['destination']} fails: {row['last_error']}")
        if not row["configured"]:
            say(f"{row['destination']} is not configured: nobody delivers to it")


def _standing(row: dict[str, Any], now: datetime) -> Text:
    if row["line"] is None:
        return Text("not yet served", "dim")
    line = Line(row["line"])
    if line is Line.CLOSED and not row["failures"]:
        return Text("up", "green")
    if row["next_trial_at"] is None:
        return Text("being tried", "yellow")
    trial = datetime.fromisoformat(row["next_trial_at"])
    words, style = ("down", "bold red") if line is Line.OPEN else ("resting", "yellow")
    if (now - trial).total_seconds() > _LATE:
        return Text(f"{words}, the trial at {trial.astimezone():%H:%M:%S} is overdue: does a worker deliver?", style)
    return Text(f"{words}, tried again at {trial.astimezone():%H:%M:%S}", style)


def _print_refusals(refusals: list[Refusals]) -> None:
    for group in refusals:
        since = f"{group.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        flags = f"{group.flags} flag(s), up to {group.urgency.name}"
        say(f"{group.destination} refused {flags}, since {since}: {group.words}")
    if refusals:
        console.print("When it is mended: hilum replay --state refused --destination NAME", style="dim")


@app.command()
@clear_errors
def times(
    config: ConfigOption = None,
    by: Annotated[By, typer.Option(help="destination, or the local hour in which the film came in.")] = By.DESTINATION,
    since: SinceOption = None,
    until: UntilOption = None,
    days: DaysOption = 7.0,
    as_json: JsonOption = False,
) -> None:
    """Time to flag, stage by stage from the last byte of the film: p50, p95 and p99 in milliseconds.

    Flags that a film's first reading gave, in the time in which they were decided.
    """
    from worker.assemble import database
    from worker.record.times import Times

    start, end = period(since, until, days)
    db = database(settings_from(config))
    db.check()
    spreads = Times(db).spreads(start, end, _GROUPS[by])
    rows: list[dict[str, Any]] = [
        {
            by.value: group,
            "stage": stage.value,
            "flags": spread.count,
            **{f"p{p}_ms": _ms(spread.percentile(p)) for p in PERCENTILES},
        }
        for group, stages in spreads.items()
        for stage, spread in stages.items()
    ]
    if as_json:
        _print_lines(rows)
        return
    table = Table(by.value, "stage", "flags", *(f"p{p} ms" for p in PERCENTILES), box=None)
    before = None
    for row in rows:
        figures = ("" if row[f"p{p}_ms"] is None else f"{row[f'p{p}_ms']:,.0f}" for p in PERCENTILES)
        table.add_row(Text("" if row[by.value] == before else row[by.value]), row["stage"], str(row["flags"]), *figures)
        before = row[by.value]
    print_table(table)
    if not rows:
        console.print("no flag was decided in that time")


def _hour(flag: FlagTimes) -> str:
    return f"{flag.received_at.astimezone():%H}"


_GROUPS: Final[dict[By, Callable[[FlagTimes], str]]] = {By.DESTINATION: lambda f: f.destination, By.HOUR: _hour}


@app.command()
@clear_errors
def qucad(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The configuration file to write; an ROC file is laid beside it.")
    ],
    radiologists: Annotated[int, typer.Option(min=1, help="Who read these films at the same time.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="That one of them takes for a study, on average.")],
    config: ConfigOption = None,
    minutes_diseased: Annotated[
        float | None, typer.Option(min=0.01, help="For a study that is called diseased, where that takes longer.")
    ] = None,
    finding: Annotated[
        str | None, typer.Option(help="Whose operating point is simulated. Default: the most urgent of the policy.")
    ] = None,
    sensitivity: Annotated[float | None, typer.Option(min=0, max=1, help="As measured at this site.")] = None,
    specificity: Annotated[float | None, typer.Option(min=0, max=1, help="As measured at this site.")] = None,
    prevalence: Annotated[float | None, typer.Option(min=0, max=1, help="At this site.")] = None,
    by_reports: Annotated[
        bool,
        typer.Option("--by-reports", help="All three by the signed reports that came in, where these say enough."),
    ] = False,
    since: SinceOption = None,
    until: UntilOption = None,
    days: DaysOption = 7.0,
) -> None:
    """Write this site's rates as the FDA's simulator of waiting times (QuCAD) reads them.

    Arrivals are measured. How fast radiologists read, hilum does not see: that is asked for. Sensitivity, specificity
    and prevalence are those of the model's card, of its own test films, unless the site knows better.
    """
    from worker.assemble import bundle, database
    from worker.cli.qucad import FIGURES, Site, operating_point, write
    from worker.policy_room import policy_in_force
    from worker.record.times import Times

    start, end = period(since, until, days)
    settings = settings_from(config)
    db = database(settings)
    db.check()
    arrivals = Times(db).arrivals(start, end)
    if arrivals.per_minute is None:
        raise ConfigurationError("fewer than two studies came in that time: choose another --since or --days")
    known: dict[str, tuple[float, str]] = {}
    if by_reports:
        agreement = Times(db).agreement(start, end)
        known = {key: (value, "by signed reports") for key in FIGURES if (value := getattr(agreement, key)) is not None}
    given = zip(FIGURES, (sensitivity, specificity, prevalence), strict=True)
    known |= {key: (value, "as given") for key, value in given if value is not None}
    point = operating_point(policy_in_force(settings, db), bundle(settings).card, finding, known)
    site = Site(
        arrivals=arrivals,
        since=start,
        until=end,
        radiologists=radiologists,
        minutes=minutes,
        minutes_diseased=minutes if minutes_diseased is None else minutes_diseased,
        point=point,
    )
    roc = write(file, site)
    console.print(
        f"{file} and {roc}: {arrivals.studies} studies, {60 * arrivals.per_minute:.1f} an hour, traffic "
        f"{site.traffic:.2f}; {point.words}.\n"
        f"In QuCAD's folder scripts: python run_sim.py --configFile {file.resolve()}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _print_lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row), flush=True)  # noqa: T201  for programs
