"""`hilum policy`: the site's policies, what one would have raised, and putting one into force."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from schemas.decision import Policy, Urgency
from schemas.policy import (
    CONFIGURED,
    OUTPUTS,
    Change,
    PolicyVersion,
    budget_in_words,
    differences,
    policy_to_json,
    rule_in_words,
    rule_of,
    spoken,
)
from worker.cli.options import ConfigOption, clear_errors, complaints, console, print_table, say, settings_from
from worker.settings import load

if TYPE_CHECKING:
    from schemas.preview import Preview
    from worker.record.database import Database
    from worker.settings import Settings
    from worker.worklist.web.policy_desk import PolicyDesk

app = typer.Typer(
    no_args_is_help=True, help="The site's policy: which finding, from which probability on, has which urgency."
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
WhichArgument = Annotated[
    str, typer.Argument(metavar="NUMBER_OR_FILE", help="A policy's number, or a TOML file with a [policy].")
]
DaysOption = Annotated[float, typer.Option(min=0.001, max=31, help="So many days back.")]


@app.command(name="list")
@clear_errors
def list_policies(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, help="So many, the latest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Every policy, the latest first; the one in force is marked.

    Number 0 is the configuration's: in force until another one is enacted.
    """
    db, desk = _open(settings_from(config))
    versions, (in_force, _) = desk.policies.list(limit), desk.in_force(_now())
    db.close()
    if as_json:
        for version in versions:
            print(json.dumps(_row(version, in_force)), flush=True)  # noqa: T201  for programs
        return
    table = Table("", "number", "in force from", "by", "because", "made", "by", "for", box=None)
    for version in versions:
        enacted = version.effective_at is not None
        table.add_row(
            "●" if version.number == in_force else "",
            str(version.number),
            _at(version.effective_at) if enacted else "never",
            Text(version.enacted_by or ""),
            Text(version.enacted_because or ""),
            _at(version.made_at),
            Text(version.made_by),
            Text(version.note),
        )
    print_table(table)
    if in_force == CONFIGURED:
        say("policy 0 is in force: the configuration's ([policy])")
    else:
        say(f"policy {in_force} is in force; what the configuration says ([policy]) is not")


@app.command()
@clear_errors
def show(
    number: Annotated[int | None, typer.Argument(help="A policy's number; default: the one in force.")] = None,
    config: ConfigOption = None,
    at: Annotated[datetime | None, typer.Option(help="The one that was in force then (UTC).")] = None,
    as_json: JsonOption = False,
) -> None:
    """What a policy says of each finding, and in what it differs from the one before it."""
    db, desk = _open(settings_from(config))
    if number is None:
        number, _ = desk.in_force(_now() if at is None else at.replace(tzinfo=UTC))
    policy, in_force = desk.body(number), desk.in_force(_now())[0]
    version = None if number == CONFIGURED else desk.policies.show(number)
    changes: tuple[Change, ...] = ()
    if version is not None and version.followed is not None:
        changes = differences(desk.body(version.followed), policy)
    db.close()
    if as_json:
        row = {"number": CONFIGURED, "policy": policy_to_json(policy), "in_force": in_force == CONFIGURED}
        print(json.dumps(row if version is None else _row(version, in_force)))  # noqa: T201  for programs
        return
    say(_headline(number, version, in_force))
    table = Table("finding", "is", box=None)
    for output in OUTPUTS:
        table.add_row(spoken(output), rule_in_words(rule_of(policy, output)))
    table.add_row("where the models disagree", "raised" if policy.on_disagreement == "flag" else "kept silent")
    table.add_row("alert budget", budget_in_words(policy.budget))
    print_table(table)
    if changes:
        say(f"unlike policy {version.followed if version else CONFIGURED}:")
        _print_changes(changes)


@app.command(name="try")
@clear_errors
def try_out(
    which: WhichArgument, config: ConfigOption = None, days: DaysOption = 7.0, as_json: JsonOption = False
) -> None:
    """What past studies would have been under a policy, beside the one in force: nothing is sent, nothing is changed.

    Studies are decided anew from their stored probabilities. `hilum try-policy` tells the same by destination.
    """
    db, desk = _open(settings_from(config))
    tried = _wanted(desk, which)
    number, in_force = desk.in_force(_now())
    with complaints.status("going through past studies"):
        seen = desk.previews().preview(tried, in_force, days, fresh=True)
    db.close()
    if as_json:
        print(json.dumps(_preview_row(seen, number)))  # noqa: T201  for programs
        return
    _print_dry_run(seen, number, differences(in_force, tried))


@app.command()
@clear_errors
def enact(
    which: WhichArgument,
    note: Annotated[str, typer.Option(help="Why: it stands in the policy's history.")],
    config: ConfigOption = None,
    days: DaysOption = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, do not show the dry run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a policy into force: its dry run is shown, and asked for a yes. Readers follow within a second or two.

    A file becomes a policy of its own, with the next number. Studies that were raised stay raised: films that are read
    from then on are decided by it.
    """
    from worker.record.audit import COMMAND_LINE, Audit
    from worker.record.policies import why

    because = why(note)
    db, desk = _open(settings_from(config))
    wanted = _wanted(desk, which)
    over, in_force = desk.in_force(_now())
    desk.check(wanted)
    if not yes:
        with complaints.status("going through past studies"):
            seen = desk.previews().preview(wanted, in_force, days, fresh=True)
        _print_dry_run(seen, over, differences(in_force, wanted))
        typer.confirm("Put it into force?", abort=True)
    if which.isdecimal() and int(which) != CONFIGURED:
        number = int(which)
    else:
        number = desk.policies.propose(wanted, made_by=COMMAND_LINE, note=f"from {which}", now=_now()).number
    version = desk.policies.enact(number, enacted_by=COMMAND_LINE, because=because, over=over, now=_now())
    detail = {"policy": version.number, "before": over}
    Audit(db).note(COMMAND_LINE, "enacted a policy", _now(), detail=detail)
    db.close()
    if as_json:
        print(json.dumps(_row(version, version.number)))  # noqa: T201  for programs
        return
    say(f"policy {version.number} is in force, in the place of {over}")


def _open(settings: Settings) -> tuple[Database, PolicyDesk]:
    from worker.assemble import bundle, database
    from worker.policy_room import policy_desk

    db = database(settings)
    db.check()
    return db, policy_desk(settings, db, lambda: bundle(settings).card)


def _wanted(desk: PolicyDesk, which: str) -> Policy:
    if which.isdecimal():
        return desk.body(int(which))
    return load(Path(which)).policy.policy()


def _now() -> datetime:
    return datetime.now(UTC)


def _at(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def _headline(number: int, version: PolicyVersion | None, in_force: int) -> str:
    now = ", in force" if number == in_force else ""
    if version is None:
        return f"policy 0{now}: the configuration's ([policy])"
    if version.effective_at is None:
        return f"policy {number}, never in force: made by {version.made_by} at {_at(version.made_at)}. {version.note}"
    since = f"{now or ', was in force'} from {_at(version.effective_at)}"
    return f"policy {number}{since}, by {version.enacted_by}: {version.enacted_because}"


def _row(version: PolicyVersion, in_force: int) -> dict[str, Any]:
    return version.to_json() | {"in_force": version.number == in_force}


def _preview_row(seen: Preview, number: int) -> dict[str, Any]:
    return {
        "since": seen.since.isoformat(),
        "until": seen.until.isoformat(),
        "in_force": number,
        "studies": seen.studies,
        "before": seen.before.raised,
        "after": seen.after.raised,
        "gained": seen.gained,
        "lost": seen.lost,
        "other_urgency": seen.other_urgency,
        "per_hour": round(seen.after.per_hour, 3),
        "busiest_hour": seen.after.busiest,
        "urgencies": {urgency.name: count for urgency, count in seen.after.urgencies.items()},
        "findings": {output: share.after for output, share in seen.shares.items() if share.after},
        "flags": {uid: flag.urgency.name for uid, flag in sorted(seen.flags.items())},
    }


def _print_changes(changes: Iterable[Change]) -> None:
    for change in changes:
        say(f"  {change.what}: {change.after} (was: {change.before})")


def _print_dry_run(seen: Preview, number: int, changes: tuple[Change, ...]) -> None:
    if changes:
        say(f"unlike policy {number}, which is in force:")
        _print_changes(changes)
    else:
        say(f"it says what policy {number} says, which is in force")
    table = Table("studies", f"policy {number}", "this one", box=None)
    table.add_row("raised", str(seen.before.raised), str(seen.after.raised))
    for urgency in (Urgency.STAT, Urgency.URGENT):
        table.add_row(urgency.name, str(seen.before.urgencies[urgency]), str(seen.after.urgencies[urgency]))
    table.add_row("an hour", f"{seen.before.per_hour:.2f}", f"{seen.after.per_hour:.2f}")
    table.add_row("in the busiest hour", str(seen.before.busiest), str(seen.after.busiest))
    for output, share in seen.shares.items():
        if share.before or share.after:
            table.add_row(f"for {spoken(output)}", str(share.before), str(share.after))
    print_table(table)
    say(
        f"{seen.gained} gain a flag, {seen.lost} lose it, {seen.other_urgency} have another urgency; {seen.studies} "
        f"studies from {seen.since:%Y-%m-%d %H:%M} to {seen.until:%Y-%m-%d %H:%M} UTC."
    )
    console.print("Nothing was sent. That a study would not have been raised is no all-clear.", style="dim")
