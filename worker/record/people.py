"""Who may look and act: people, their sessions, and programs' keys. Secrets are known here by their digests only."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from schemas.errors import RecordError
from schemas.person import Account, Person, Role, Token
from schemas.tables import InvitationRow, PersonRow, SessionRow, TokenRow
from worker.record.database import Database
from worker.record.rows import word
from worker.record.shapes import clean

LONGEST_NAME: Final = 100  # characters
KEY_OF: Final = "token "  # before a key's name, where a program does something
_NOBODY: Final = frozenset({"command line", "nobody"})  # in the audit trail
_TRIES: Final = 5  # wrong passwords before the account is locked
_LOCKED: Final = timedelta(minutes=1)  # at first; doubled with each further wrong one
_LONGEST_LOCK: Final = timedelta(hours=1)
_TOUCH: Final = timedelta(seconds=30)  # a session's last look is noted no more often

_BY_NAME: Final = select(PersonRow).where(PersonRow.folded == bindparam("low"))
_BY_ID: Final = select(PersonRow).where(PersonRow.id == bindparam("person"))
_BY_SUBJECT: Final = select(PersonRow).where(PersonRow.subject == bindparam("who"))
_SESSION: Final = (
    select(
        SessionRow.id.label("session"),
        SessionRow.created_at.label("began_at"),
        SessionRow.seen_at,
        SessionRow.locked,
        PersonRow.id,
        PersonRow.name,
        PersonRow.role,
    )
    .join(PersonRow, PersonRow.id == SessionRow.person_id)
    .where(SessionRow.digest == bindparam("cookie"), PersonRow.disabled.is_(False))
)
_SEEN: Final = (
    update(SessionRow)
    .where(SessionRow.digest == bindparam("cookie"), SessionRow.locked.is_(False))
    .values(seen_at=bindparam("now"))
)
_PERSON_SEEN: Final = update(PersonRow).where(PersonRow.id == bindparam("person")).values(last_seen_at=bindparam("now"))
_ADMINISTRATORS: Final = select(PersonRow.id).where(
    PersonRow.role == word(Role.ADMINISTRATOR), PersonRow.disabled.is_(False)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What a sign-in is checked against."""

    person: Person
    password: str | None  # argon2id hash
    locked_until: datetime | None
    disabled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A browser that somebody signed in with."""

    person: Person
    locked: bool  # was idle too long: shows nothing until the password is given again


class People:
    """People, their sessions, and programs' keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # People

    def add(self, name: str, role: Role, now: datetime, subject: str | None = None) -> Person:
        """A new person, who has no password yet. Raises `RecordError` when the name is taken or is none."""
        name = _line(name)
        low = _folded(name)
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise RecordError(f"a name has 1 to {LONGEST_NAME} printable characters")
        if low.startswith(KEY_OF) or low in _NOBODY:
            raise RecordError(f"{name!r} would be taken for no person in the audit trail; choose another name")

        def work(connection: Connection) -> Person:
            if connection.execute(_BY_NAME, {"low": low}).first() is not None:
                raise RecordError(f"somebody named {name!r} is there already; choose another name")
            values: dict[str, Any] = {
                "name": name,
                "folded": low,
                "role": role.value,
                "subject": None if subject is None else clean(subject),
                "created_at": now,
                "view": {},
            }
            person = connection.execute(insert(PersonRow).values(values).returning(PersonRow.id)).scalar_one()
            return Person(id=int(person), name=name, role=role)

        return self._database.write(work)

    def everybody(self) -> list[Account]:
        """Everybody, by name."""
        found = select(PersonRow).order_by(PersonRow.folded)
        return self._database.read(lambda c: [_account(row) for row in c.execute(found)])

    def show(self, person: int) -> Account | None:
        """One of them."""
        row = self._database.read(lambda c: c.execute(_BY_ID, {"person": person}).one_or_none())
        return None if row is None else _account(row)

    def named(self, name: str) -> Account | None:
        """Whoever signs in by this name."""
        row = self._database.read(lambda c: c.execute(_BY_NAME, {"low": _folded(name)}).one_or_none())
        return None if row is None else _account(row)

    def set_role(self, person: int, role: Role) -> None:
        """What somebody may do from now on. Raises `RecordError` when no administrator would be left."""
        self._change(person, role=role.value)

    def disable(self, person: int, *, disabled: bool = True) -> None:
        """Shut somebody out, at once and everywhere, or let them in again. Raises `RecordError` as `set_role`."""
        self._change(person, disabled=disabled)

    def _change(self, person: int, **values: Any) -> None:
        def work(connection: Connection) -> None:
            # All of them are locked: two who demote each other must not both succeed.
            before = set(connection.scalars(_ADMINISTRATORS.order_by(PersonRow.id).with_for_update()))
            changed = update(PersonRow).where(PersonRow.id == person).values(**values)
            if not connection.execute(changed).rowcount:
                raise RecordError("no such person is known here")
            if before and not set(connection.scalars(_ADMINISTRATORS)):
                raise RecordError("this is the last administrator: make somebody else one first")
            if values.get("disabled"):
                connection.execute(delete(SessionRow).where(SessionRow.person_id == person))
                connection.execute(delete(InvitationRow).where(InvitationRow.person_id == person))

        self._database.write(work)

    def view(self, person: int) -> dict[str, Any]:
        """What somebody set for themselves."""
        view = self._database.read(lambda c: c.scalar(select(PersonRow.view).where(PersonRow.id == person)))
        return dict(view or {})

    def set_view(self, person: int, view: dict[str, Any]) -> None:
        """Keep it."""
        kept = update(PersonRow).where(PersonRow.id == person).values(view=view)
        self._database.write(lambda c: c.execute(kept))

    # Signing in

    def invite(self, person: int, digest: str, expires_at: datetime) -> None:
        """A link to choose a password with; earlier ones are void."""

        def work(connection: Connection) -> None:
            connection.execute(delete(InvitationRow).where(InvitationRow.person_id == person))
            connection.execute(insert(InvitationRow).values(digest=digest, person_id=person, expires_at=expires_at))

        self._database.write(work)

    def invited(self, digest: str, now: datetime) -> Person | None:
        """Whose link it is, while it is good."""
        found = (
            select(PersonRow)
            .join(InvitationRow, InvitationRow.person_id == PersonRow.id)
            .where(InvitationRow.digest == digest, InvitationRow.expires_at > now, PersonRow.disabled.is_(False))
        )
        row = self._database.read(lambda c: c.execute(found).one_or_none())
        return None if row is None else _person(row)

    def accept(self, digest: str, password: str, now: datetime) -> Person | None:
        """Use the link up: the password's hash is the person's, who is signed out elsewhere. None: it is not good."""

        def work(connection: Connection) -> Person | None:
            used = delete(InvitationRow).where(InvitationRow.digest == digest, InvitationRow.expires_at > now)
            person = connection.execute(used.returning(InvitationRow.person_id)).scalar_one_or_none()
            row = connection.execute(_BY_ID, {"person": person}).one_or_none()
            if row is None or row.disabled:
                return None
            self._set_password(connection, row.id, password)
            return _person(row)

        return self._database.write(work)

    def set_password(self, person: int, password: str) -> None:
        """A new hash; signs the person out everywhere."""
        self._database.write(lambda c: self._set_password(c, person, password))

    @staticmethod
    def _set_password(connection: Connection, person: int, password: str) -> None:
        values = {"password": password, "wrong": 0, "locked_until": None}
        connection.execute(update(PersonRow).where(PersonRow.id == person).values(values))
        connection.execute(delete(SessionRow).where(SessionRow.person_id == person))

    def rehash(self, person: int, password: str) -> None:
        """The same password, hashed anew."""
        kept = update(PersonRow).where(PersonRow.id == person).values(password=password)
        self._database.write(lambda c: c.execute(kept))

    def credentials(self, name: str) -> Credentials | None:
        """Of whoever signs in by this name."""
        row = self._database.read(lambda c: c.execute(_BY_NAME, {"low": _folded(name)}).one_or_none())
        if row is None:
            return None
        return Credentials(
            person=_person(row), password=row.password, locked_until=row.locked_until, disabled=row.disabled
        )

    def by_subject(self, subject: str) -> Account | None:
        """Who is known to an OpenID provider by this subject."""
        row = self._database.read(lambda c: c.execute(_BY_SUBJECT, {"who": clean(subject)}).one_or_none())
        return None if row is None else _account(row)

    def wrong_password(self, person: int, now: datetime) -> datetime | None:
        """Count it; until when the account is locked now, if it is."""

        def work(connection: Connection) -> datetime | None:
            row = connection.execute(_BY_ID.with_for_update(), {"person": person}).one()
            wrong = row.wrong + 1
            over = wrong - _TRIES
            until = None if over < 0 else now + min(_LOCKED * 2 ** min(over, 10), _LONGEST_LOCK)
            values = {"wrong": wrong, "locked_until": until}
            connection.execute(update(PersonRow).where(PersonRow.id == person).values(values))
            return until

        return self._database.write(work)

    def sign_in(self, person: int, digest: str, now: datetime) -> bool:
        """A new session; wrong passwords are forgotten. False: shut out in this moment."""

        def work(connection: Connection) -> bool:
            may = update(PersonRow).where(PersonRow.id == person, PersonRow.disabled.is_(False))
            if not connection.execute(may.values(wrong=0, locked_until=None, last_seen_at=now)).rowcount:
                return False
            values = {"digest": digest, "person_id": person, "created_at": now, "seen_at": now}
            connection.execute(insert(SessionRow).values(values))
            return True

        return self._database.write(work)

    def session(
        self, digest: str, now: datetime, *, idle: timedelta, longest: timedelta, used: bool = True
    ) -> Session | None:
        """Whose session it is; None where it is over. Locked where nobody `used` it for `idle`.

        What a page asks by itself is no use: a list that is always new would never be locked.
        """
        row = self._database.read(lambda c: c.execute(_SESSION, {"cookie": digest}).one_or_none())
        if row is None or now - row.began_at > longest:
            return None
        locked = row.locked or now - row.seen_at > idle
        if used and not locked and now - row.seen_at > _TOUCH:
            self._used(digest, row.id, now)
        return Session(person=_person(row), locked=locked)

    def _used(self, digest: str, person: int, now: datetime) -> None:

        def work(connection: Connection) -> None:
            connection.execute(_SEEN, {"cookie": digest, "now": now})
            connection.execute(_PERSON_SEEN, {"person": person, "now": now})

        self._database.write(work)

    def lock(self, digest: str) -> None:
        """The session shows nothing until the password is given again."""
        locked = update(SessionRow).where(SessionRow.digest == digest).values(locked=True)
        self._database.write(lambda c: c.execute(locked))

    def sign_out(self, digest: str) -> None:
        """The session is over."""
        self._database.write(lambda c: c.execute(delete(SessionRow).where(SessionRow.digest == digest)))

    def sweep(self, now: datetime, longest: timedelta) -> int:
        """Let go of sessions that are over and links that are no good any more; returns how many."""

        def work(connection: Connection) -> int:
            over = connection.execute(delete(SessionRow).where(SessionRow.created_at < now - longest)).rowcount
            return over + connection.execute(delete(InvitationRow).where(InvitationRow.expires_at <= now)).rowcount

        return self._database.write(work)

    # Programs

    def add_token(
        self, *, name: str, role: Role, digest: str, created_by: str, now: datetime, expires_at: datetime | None
    ) -> int:
        """A program's key; its number."""
        name = _line(name)
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise RecordError(f"a key's name has 1 to {LONGEST_NAME} printable characters: say who uses it")
        values = {
            "digest": digest,
            "name": name,
            "role": role.value,
            "created_by": created_by,
            "created_at": now,
            "expires_at": expires_at,
        }
        added = insert(TokenRow).values(values).returning(TokenRow.id)
        return int(self._database.write(lambda c: c.execute(added).scalar_one()))

    def tokens(self) -> list[Token]:
        """Every key, the latest first."""
        found = select(TokenRow).order_by(TokenRow.id.desc())
        return self._database.read(lambda c: [_token(row) for row in c.execute(found)])

    def revoke(self, token: int) -> bool:
        """A key opens nothing any more; whether there is such a key."""
        revoked = update(TokenRow).where(TokenRow.id == token).values(revoked=True)
        return self._database.write(lambda c: c.execute(revoked).rowcount) > 0

    def by_token(self, digest: str, now: datetime) -> Person | None:
        """Whose key it is, while it is good: "token NAME", of no number."""
        found = select(TokenRow).where(TokenRow.digest == digest, TokenRow.revoked.is_(False))
        row = self._database.read(lambda c: c.execute(found).one_or_none())
        if row is None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.last_used_at is None or now - row.last_used_at > _TOUCH:
            used = update(TokenRow).where(TokenRow.id == row.id).values(last_used_at=now)
            self._database.write(lambda c: c.execute(used))
        return Person(id=0, name=f"{KEY_OF}{row.name}", role=Role(row.role))


def _line(name: str) -> str:
    return " ".join(clean(name).split())


def _folded(name: str) -> str:
    """As names are compared. By us: each database folds in its own way, and some only ASCII."""
    return unicodedata.normalize("NFKC", _line(name)).casefold()


def _person(row: Any) -> Person:
    return Person(id=row.id, name=row.name, role=Role(row.role))


def _account(row: Any) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        disabled=row.disabled,
        has_password=row.password is not None,
        subject=row.subject or "",
        locked_until=row.locked_until,
    )


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked=row.revoked,
    )
