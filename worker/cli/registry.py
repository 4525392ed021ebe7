"""`hilum models registry`, `add`, `promote`, `rollback`, …: which model reads, by the same rules as the page."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from schemas.errors import ConfigurationError, RecordError
from schemas.figures import binary_auroc, macro_auroc
from schemas.registry import COMMAND_LINE, ModelEvent, ModelState, RegisteredModel
from worker.cli.options import ConfigOption, clear_errors, complaints, plain, print_table, say, settings_from
from worker.cli.runs import user

if TYPE_CHECKING:
    from worker.record.database import Database
    from worker.record.registry import Registry
    from worker.settings import Settings

HEARD: timedelta = timedelta(minutes=5)  # a process that was silent for longer is not listed

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its id or name, as `hilum models registry` has it.")
]
WhyOption = Annotated[str, typer.Option("--why", help="For the history.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def _database(config: Path | None) -> tuple[Settings, Database]:
    from worker.assemble import database

    settings = settings_from(config)
    found = database(settings)
    found.check()
    return settings, found


def _registry(config: Path | None) -> tuple[Settings, Registry]:
    from worker.record.registry import Registry

    settings, database = _database(config)
    return settings, Registry(database)


def _now() -> datetime:
    from worker.assemble import now

    return now()


def _who() -> str:
    return user() + COMMAND_LINE


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row), flush=True)  # noqa: T201  for programs


def named(model: RegisteredModel) -> str:
    """For a person: "starter 0.2.0 (a402c031effab3ec)"."""
    return f"{model.name} {model.version} ({model.model_id})"


def registry(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The models that this site knows, where each stands, and which process reads with which."""
    _, known = _registry(config)
    readers = known.readers(_now() - HEARD)
    models = known.models()
    if as_json:
        _print(
            [_row(model) | {"readers": [r.reader for r in readers if r.model_id == model.model_id]} for model in models]
        )
        return
    table = Table(
        "state", "bundle", "version", Column("model", no_wrap=True), "binary AUROC", "macro AUROC", "added", box=None
    )
    for model in sorted(models, key=lambda m: list(ModelState).index(m.state)):
        table.add_row(
            model.state,
            plain(model.bundle),
            plain(model.version),
            model.model_id,
            str(binary_auroc(model.card) or ""),
            str(macro_auroc(model.card) or ""),
            f"{model.added_at:%Y-%m-%d %H:%M} UTC",
        )
    print_table(table)
    if not models:
        say("none yet: the first worker that reads enters the configured one ([model] bundle)")
    for reader in readers:
        along = f", {reader.shadow_id} reads along ({reader.dropped} dropped)" if reader.shadow_id else ""
        say(f"{reader.reader}: reads with {reader.model_id} since {reader.since:%Y-%m-%d %H:%M:%S} UTC{along}")
        if reader.fault:
            complaints.print(plain(f"{reader.reader}: {reader.fault}"), highlight=False, soft_wrap=True)


def _row(model: RegisteredModel) -> dict[str, Any]:
    figures = {"binary": binary_auroc(model.card), "macro": macro_auroc(model.card)}
    return model.to_json() | {name: None if figure is None else figure.to_json() for name, figure in figures.items()}


def add(
    source: Annotated[
        str, typer.Argument(metavar="NAME_OR_FOLDER", help="In the store; or a folder or archive, taken into it first.")
    ],
    why: WhyOption = "",
    config: ConfigOption = None,
) -> None:
    """Enter a bundle as a candidate, proven on every runtime that is installed here."""
    from worker.reading_room import enter

    settings, known = _registry(config)
    with complaints.status("proving the bundle"):
        model = enter(settings, known, source, who=_who(), why=why, now=_now())
    say(f"{named(model)} is a {model.state}; `hilum models shadow {model.model_id}` lets it read along")


def shadow(model: ModelArgument, why: WhyOption = "", config: ConfigOption = None) -> None:
    """Let a candidate read live films in silence."""
    _move(model, ModelState.SHADOW, why, config)


def candidate(model: ModelArgument, why: WhyOption = "", config: ConfigOption = None) -> None:
    """Take a model out of the shadow, or up again after it was retired."""
    _move(model, ModelState.CANDIDATE, why, config)


def retire(model: ModelArgument, why: WhyOption = "", config: ConfigOption = None) -> None:
    """Take a model out of use. The live one retires when another is promoted, or by a roll back."""
    _move(model, ModelState.RETIRED, why, config)


def _move(name: str, to: ModelState, why: str, config: Path | None) -> None:
    _, known = _registry(config)
    model = known.find(name)
    known.move(model.model_id, to, who=_who(), why=why, now=_now())
    say(f"{named(model)}: {model.state} before, {to} now")


def promote(
    model: ModelArgument,
    why: WhyOption = "",
    config: ConfigOption = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it may be. Exit 1: not.")] = False,
) -> None:
    """Make the model that reads along the one that reads. Takes effect in every worker within seconds.

    It must be no worse than the live model on the test films, proven here, and have operating points of its own.
    """
    settings, known = _registry(config)
    two = settings.model.two_people
    found = known.find(model)
    checks = known.judge(found.model_id, who=_who(), two_people=two)
    for each in checks:
        say(f"{'ok  ' if each.passed else 'FAIL'} {each.name}: {each.words}")
    if check:
        if not all(each.passed for each in checks):
            raise typer.Exit(1)
        return
    live = known.wanted()[0] or ""
    known.promote(found.model_id, instead_of=live, who=_who(), why=why, now=_now(), two_people=two)
    say(f"{named(found)} reads from now on; `hilum models rollback` goes back to {live}")


def rollback(why: WhyOption = "", config: ConfigOption = None) -> None:
    """Go back to the model that was live before. Takes effect in every worker within seconds; no film is lost."""
    _, known = _registry(config)
    live = known.wanted()[0] or ""
    former = known.roll_back(instead_of=live, who=_who(), why=why, now=_now())
    say(f"{named(former)} reads again from now on; {live} is retired")


def history(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only of this one.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many lines.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What became of the models, the latest first: who, when, why, and what a promotion was judged by."""
    _, known = _registry(config)
    events = known.history(limit, model=None if model is None else known.find(model).model_id)
    if as_json:
        _print([_event(event) for event in events])
        return
    table = Table("at", "who", Column("model", no_wrap=True), "what", Column("why", overflow="fold"), box=None)
    for event in events:
        table.add_row(
            f"{event.at:%Y-%m-%d %H:%M:%S} UTC", plain(event.who), event.model_id, moved(event), plain(event.why)
        )
    print_table(table)


def moved(event: ModelEvent) -> str:
    """ "shadow to live", "taken up"."""
    if event.to_state is None or event.from_state is None:
        return event.action.value
    words = f"{event.from_state} to {event.to_state}"
    return words if event.action.value == "moved" else f"{event.action.value}: {words}"


def _event(event: ModelEvent) -> dict[str, Any]:
    return asdict(event) | {"at": event.at.isoformat(), "checks": [asdict(check) for check in event.checks]}


def live_at(
    moment: Annotated[
        str,
        typer.Argument(
            metavar="TIME", help="Such as 2026-05-04T03:12, in local time unless it says which (…Z, …+02:00)."
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which model was live at a moment, and what the processes that read told of it in that spell."""
    try:
        at = datetime.fromisoformat(moment).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{moment!r} is no time; write it as 2026-05-04T03:12") from error
    _, known = _registry(config)
    spell = known.live_at(at)
    if spell is None:
        raise RecordError(f"no model was live at {at:%Y-%m-%d %H:%M:%S} UTC: the registry had none yet")
    if as_json:
        until = None if spell.until is None else spell.until.isoformat()
        told = [_event(event) for event in spell.told]
        about = {
            "at": at.isoformat(),
            "since": spell.since.isoformat(),
            "until": until,
            "who": spell.who,
            "why": spell.why,
        }
        _print([_row(spell.model) | about | {"told": told}])
        return
    end = "it is live still" if spell.until is None else f"until {spell.until:%Y-%m-%d %H:%M:%S} UTC"
    say(f"{named(spell.model)}, live since {spell.since:%Y-%m-%d %H:%M:%S} UTC ({spell.who}: {spell.why}), {end}")
    for event in spell.told:
        say(f"{event.at:%Y-%m-%d %H:%M:%S} UTC {event.who}: {event.action} {event.why}")


def compare(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Default: the one that reads along.", show_default=False)
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="So many days back.")] = 7.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the shadow said of films beside what was said aloud: flags gained and lost, and who would wait longer."""
    from worker.record import side_by_side
    from worker.record.registry import Registry
    from worker.record.shadow import Shadows

    _, database = _database(config)
    known = Registry(database)
    wanted = model or known.wanted()[1]
    if wanted is None:
        raise RecordError("no model reads along; name one, or `hilum models shadow` one")
    found = known.find(wanted)
    now = _now()
    both = side_by_side.compare(Shadows(database).films(found.model_id, now - timedelta(days=days), now))
    if as_json:
        _print([{"model_id": found.model_id} | both.to_json()])
        return
    say(f"{named(found)} beside what was live, {days:g} days back: {both.films} films of {both.studies} studies")
    say(
        f"flags gained {both.gained_count}, lost {both.lost_count}, both {both.both}, neither {both.neither}"
        + ("" if both.agreement is None else f"; agreement {both.agreement:.1%}")
        + ("" if both.kappa is None else f", kappa {both.kappa:.2f}")
    )
    table = Table("finding", "live", "shadow", "both", box=None)
    for finding in both.findings:
        table.add_row(finding.finding.replace("_", " "), str(finding.live), str(finding.shadow), str(finding.both))
    print_table(table)
    waits = Table("played through", "studies", "median now", "would be", "longest now", "would be", box=None)
    for wait in both.waits:
        minutes = (wait.live_median, wait.median, wait.live_longest, wait.longest)
        waits.add_row(wait.group, str(wait.studies), *(f"{m:.0f} min" for m in minutes))
    print_table(waits)
    say(f"One reader, {both.pace:.1f} minutes a study, the most urgent first. No flag is no all-clear.")


def attach(app: typer.Typer) -> None:
    """Put them among the commands of `hilum models`."""
    for command in (registry, add, shadow, promote, rollback, retire, candidate, history, live_at, compare):
        app.command(name=command.__name__.replace("_", "-"))(clear_errors(command))
