"""`hilum try-policy`: what would have been told of last week's studies under a changed configuration."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from schemas.decision import Policy, Urgency
from worker.cli.options import ConfigOption, clear_errors, complaints, console, print_table, say, settings_from
from worker.cli.report import DaysOption, SinceOption, UntilOption, period
from worker.settings import Settings, load

if TYPE_CHECKING:
    from worker.corridor.rehearsal import Plan, Tally


@clear_errors
def try_policy(
    policy: Annotated[
        Path,
        typer.Option(metavar="FILE", help="TOML file with the [policy], the [[destinations]], or both, to try."),
    ],
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    days: DaysOption = 7.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line and destination.")] = False,
) -> None:
    """What would have been told of past studies under another policy: nothing is sent, nothing is changed.

    Every stored prediction is decided anew, settled and routed as it would have been. Numbers are of studies. What FILE
    does not hold is as it is: the policy in force, the destinations as configured.
    """
    from worker.assemble import database
    from worker.corridor.rehearsal import Tally, compare, rehearse
    from worker.policy_room import policy_in_force
    from worker.record.history import History

    start, end = period(since, until, days)
    settings = settings_from(config)
    new = load(policy)
    tried = _tried(settings, new)
    db = database(settings)
    db.check()
    plan = _plan(tried, new.policy.policy() if "policy" in new.model_fields_set else policy_in_force(settings, db))
    history = History(db)
    tallies = {d.name: Tally() for d in tried.destinations}
    count = 0
    with Progress(console=complaints, transient=True, disable=not complaints.is_terminal) as progress:
        task = progress.add_task("studies", total=history.count(start, end))
        for study in history.studies(start, end):
            compare(tallies, study, rehearse(study, plan))
            progress.advance(task)
            count += 1
    span = (end - start).total_seconds() / 86400
    rows = [_row(name, tally, span) for name, tally in tallies.items()]
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)  # noqa: T201  for programs
    else:
        _print(rows, count, start, end)


def _tried(settings: Settings, new: Settings) -> Settings:
    changed = {"destinations": new.destinations} if "destinations" in new.model_fields_set else {}
    return settings.model_copy(update=changed)


def _plan(settings: Settings, policy: Policy) -> Plan:
    from worker.assemble import bundle, route
    from worker.corridor.rehearsal import Plan, points_under

    model = bundle(settings)
    points = points_under(policy, model.model_id, model.card.thresholds)
    return Plan(policy=policy, operating_points=points, route=route(settings))


def _row(name: str, tally: Tally, days: float) -> dict[str, Any]:
    return {
        "destination": name,
        "was": tally.was,
        "would": tally.would,
        "gained": tally.gained,
        "lost": tally.lost,
        "other_urgency": tally.other_urgency,
        "per_day": round(tally.would / days, 1),
        "messages": tally.messages,
        "urgencies": {urgency.name: tally.urgencies[urgency] for urgency in reversed(Urgency)},
        "findings": dict(tally.findings.most_common()),
    }


def _print(rows: list[dict[str, Any]], count: int, start: datetime, end: datetime) -> None:
    names = [urgency.name for urgency in reversed(Urgency)]
    table = Table("destination", "was", "would be", "gained", "lost", "other urgency", "a day", *names, "why", box=None)
    for row in rows:
        table.add_row(
            Text(row["destination"]),
            *(str(row[key]) for key in ("was", "would", "gained", "lost", "other_urgency", "per_day")),
            *(str(row["urgencies"][name] or "") for name in names),
            Text("\n".join(f"{finding.replace('_', ' ').lower()} {n}" for finding, n in row["findings"].items())),
        )
    print_table(table)
    if not rows:
        say("no destination is configured: nobody would be told ([[destinations]])")
    console.print(
        f"{count} studies from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC. Nothing was sent. "
        "That a study would not have been raised is no all-clear.",
        style="dim",
    )
