"""`hilum people`: who may look and act, from the machine itself. What is done here stands in the audit trail too."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from schemas.errors import RecordError
from schemas.person import ROLE_WORDS, Account, Role
from worker.cli.options import ConfigOption, clear_errors, console, print_table, say, settings_from
from worker.cli.runs import user

if TYPE_CHECKING:
    from worker.record.people import People
    from worker.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Who may sign in, and programs' keys.\n\n"
    "Whoever is added, or has lost the password, gets a link that works once. Roles: "
    + "; ".join(f"{role} ({words})" for role, words in ROLE_WORDS.items())
    + ".",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As somebody signs in.", show_default=False)]
RoleOption = Annotated[Role, typer.Option("--role", help="What they may do.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs.")]


class Office:
    """People and the trail, of the configured database."""

    def __init__(self, config: Any) -> None:
        from worker.assemble import database
        from worker.record.audit import Audit
        from worker.record.people import People

        self.settings: Settings = settings_from(config)
        db = database(self.settings)
        db.check()
        self.people: People = People(db)
        self._audit = Audit(db)

    def one(self, name: str) -> Account:
        """Whoever signs in by this name. Raises `RecordError` where nobody does."""
        account = self.people.named(name)
        if account is None:
            raise RecordError(f"nobody signs in as {name!r}; `hilum people list` shows who does")
        return account

    def note(self, action: str, **detail: Any) -> None:
        """Into the trail."""
        from worker.record.audit import COMMAND_LINE

        self._audit.note(COMMAND_LINE, action, now(), detail={"account": user(), **detail})

    def link(self, person: int, name: str) -> None:
        """Print a link that chooses a password; it voids the one before."""
        from worker.desk import address
        from worker.worklist.web.entry import digest, new_secret
        from worker.worklist.web.routes.door import INVITED_FOR

        secret = new_secret()
        self.people.invite(person, digest(secret), now() + INVITED_FOR)
        say(f"{address(self.settings.web)}/welcome/{secret}")
        say(f"works once, for {INVITED_FOR.days} days; whoever has it chooses the password of {name}")


def now() -> datetime:
    """The clock."""
    from worker.assemble import now as clock

    return clock()


@app.command(name="list")
@clear_errors
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Everybody who may sign in, or might."""
    accounts = Office(config).people.everybody()
    if as_json:
        _print([asdict(account) for account in accounts])
        return
    table = Table("name", "role", "state", "last seen (UTC)", box=None)
    for account in accounts:
        seen = "never" if account.last_seen_at is None else f"{account.last_seen_at:%Y-%m-%d %H:%M}"
        table.add_row(Text(account.name), account.role, _state(account), seen)
    print_table(table)
    if not accounts:
        console.print("nobody yet; `hilum serve` prints the first administrator's link, or `hilum people add`")


def _state(account: Account) -> str:
    if account.disabled:
        return "shut out"
    if account.locked_until is not None and account.locked_until > now():
        return f"locked until {account.locked_until:%H:%M} UTC after wrong passwords"
    if account.subject:
        return "by OpenID Connect"
    return "password" if account.has_password else "invited"


@app.command()
@clear_errors
def add(name: NameArgument, role: RoleOption = Role.RADIOLOGIST, config: ConfigOption = None) -> None:
    """Add somebody; prints the link by which they choose a password."""
    office = Office(config)
    person = office.people.add(name, role, now())
    office.note("invited", person=person.name, role=role.value)
    office.link(person.id, person.name)


@app.command()
@clear_errors
def invite(name: NameArgument, config: ConfigOption = None) -> None:
    """A new link for somebody who lost the password, or the link. The lock after wrong passwords goes with it."""
    office = Office(config)
    account = office.one(name)
    if account.disabled:
        raise RecordError(f"{account.name!r} is shut out; `hilum people let-in` first")
    office.note("invited", person=account.name, role=account.role.value)
    office.link(account.id, account.name)


@app.command()
@clear_errors
def role(
    name: NameArgument,
    to: Annotated[Role, typer.Argument(metavar="ROLE", help="What they may do from now on.", show_default=False)],
    config: ConfigOption = None,
) -> None:
    """What somebody may do from now on, sessions that are open included."""
    office = Office(config)
    account = office.one(name)
    office.people.set_role(account.id, to)
    office.note("changed a role", person=account.name, role=to.value)
    say(f"{account.name}: {account.role} before, {to} now")


@app.command()
@clear_errors
def shut_out(name: NameArgument, config: ConfigOption = None) -> None:
    """Shut somebody out, at once and everywhere. Keys that they made go on: see `hilum people keys`."""
    office = Office(config)
    account = office.one(name)
    office.people.disable(account.id)
    office.note("shut out", person=account.name)
    say(f"{account.name} is shut out")


@app.command()
@clear_errors
def let_in(name: NameArgument, config: ConfigOption = None) -> None:
    """Let somebody in again, by the password as it was."""
    office = Office(config)
    account = office.one(name)
    office.people.disable(account.id, disabled=False)
    office.note("let in again", person=account.name)
    say(f"{account.name} may sign in again")


@app.command()
@clear_errors
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses it, such as: the RIS.", show_default=False)],
    role: RoleOption = Role.RADIOLOGIST,
    days: Annotated[int, typer.Option(min=0, max=3650, help="Good for so long; 0: for ever.")] = 365,
    config: ConfigOption = None,
) -> None:
    """Make a program's key to the API, and print it: only its digest is kept."""
    from worker.record.audit import COMMAND_LINE
    from worker.worklist.web.entry import digest, new_key

    office = Office(config)
    made = new_key()
    number = office.people.add_token(
        name=name,
        role=role,
        digest=digest(made),
        created_by=COMMAND_LINE,
        now=now(),
        expires_at=now() + timedelta(days=days) if days else None,
    )
    office.note("made a key", key=name, role=role.value)
    say(made)
    say(f"shown once; `Authorization: Bearer` before it opens the API; `hilum people revoke {number}` ends it")


@app.command()
@clear_errors
def keys(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Programs' keys, without the keys themselves."""
    found = Office(config).people.tokens()
    if as_json:
        _print([asdict(token) for token in found])
        return
    table = Table("ID", "of", "role", "made by", "good until", "last used (UTC)", box=None)
    for token in found:
        until = "for ever" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d}"
        used = "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M}"
        state = "revoked" if token.revoked else until
        table.add_row(str(token.id), Text(token.name), token.role, Text(token.created_by), state, used)
    print_table(table)
    if not found:
        console.print("no program has a key; `hilum people key` makes one")


@app.command()
@clear_errors
def revoke(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**31, help="As `hilum people keys` shows it.")],
    config: ConfigOption = None,
) -> None:
    """A key opens nothing any more."""
    office = Office(config)
    if not office.people.revoke(number):
        raise RecordError(f"there is no key {number}; `hilum people keys` shows them")
    office.note("revoked a key", number=number)
    say(f"key {number} opens nothing any more")


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row, default=str), flush=True)  # noqa: T201  for programs
