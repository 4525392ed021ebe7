"""The site's policies: proposed, put into force, and which was in force when. Rows are added; what one says stands."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from schemas.decision import Policy
from schemas.errors import ConfigurationError, RecordError
from schemas.policy import CONFIGURED, PolicyVersion, policy_from_json, policy_to_json
from schemas.tables import PolicyRow
from worker.record.database import Database
from worker.record.shapes import clean

LONGEST: Final = 2000  # characters of a note

_BY_NUMBER: Final = select(PolicyRow).where(PolicyRow.number == bindparam("wanted"))
_LATEST: Final = select(PolicyRow).order_by(PolicyRow.number.desc()).limit(bindparam("limit"))
_NEXT: Final = select(func.coalesce(func.max(PolicyRow.number), CONFIGURED) + 1)
_AT: Final = (
    select(PolicyRow)
    .where(PolicyRow.effective_at <= bindparam("moment"))
    .order_by(PolicyRow.effective_at.desc())
    .limit(1)
)
_ENACTED: Final = (
    select(PolicyRow).where(PolicyRow.effective_at.is_not(None)).order_by(PolicyRow.effective_at.desc()).limit(1)
)
_PROPOSE: Final = insert(PolicyRow)
_ENACT: Final = (
    update(PolicyRow)
    .where(PolicyRow.number == bindparam("wanted"), PolicyRow.effective_at.is_(None))
    .values(
        effective_at=bindparam("moment"),
        enacted_by=bindparam("who"),
        enacted_because=bindparam("because"),
        followed=bindparam("before"),
    )
)


class PolicyUnknown(RecordError):
    """There is no policy of that number."""


class PolicyOvertaken(RecordError):
    """It was in force before, or another one came into force since somebody looked."""


class Policies:
    """Every policy but the configuration's, which is number 0 and in force until another is enacted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def propose(self, policy: Policy, *, made_by: str, note: str, now: datetime) -> PolicyVersion:
        """Keep a policy under the next number; it changes nothing until it is enacted.

        Raises
        ------
        ConfigurationError
            The note is too long.
        """
        note = _proper(note)

        def work(connection: Connection) -> PolicyVersion:
            number = connection.execute(_NEXT).scalar_one()  # of two at once, one finds it taken and tries again
            values = {
                "number": number,
                "body": policy_to_json(policy),
                "note": note,
                "made_by": clean(made_by),
                "made_at": now,
            }
            connection.execute(_PROPOSE, values)
            return _found(connection, number)

        return self._database.write(work)

    def enact(self, number: int, *, enacted_by: str, because: str, over: int, now: datetime) -> PolicyVersion:
        """Put a proposed policy into force, from `now` on; readers follow within a second or two.

        Parameters
        ----------
        over:
            The number in force as whoever decides this saw it.

        Raises
        ------
        ConfigurationError
            No reason is given.
        PolicyUnknown
            No such policy.
        PolicyOvertaken
            It was in force before, or another one came into force since `over` was looked at.
        """
        because = why(because)

        def work(connection: Connection) -> PolicyVersion:
            wanted = _found(connection, number)
            last = connection.execute(_ENACTED).one_or_none()
            in_force = CONFIGURED if last is None else last.number
            if wanted.effective_at is not None:
                raise PolicyOvertaken(
                    f"policy {number} came into force at {wanted.effective_at:%Y-%m-%d %H:%M} UTC and does so once: "
                    "propose the same again to go back to it"
                )
            if in_force != over:
                raise PolicyOvertaken(
                    f"policy {in_force} came into force meanwhile, in the place of {over}: look at the dry run again"
                )
            # Clocks of two hosts may differ: what follows is in force later all the same.
            moment = now if last is None else max(now, last.effective_at + timedelta(microseconds=1))
            values = {"who": clean(enacted_by), "because": because, "before": in_force}
            connection.execute(_ENACT, {"wanted": number, "moment": moment, **values})
            return _found(connection, number)

        return self._database.write(work)

    def list(self, limit: int = 50) -> list[PolicyVersion]:
        """The latest first."""
        return self._database.read(
            lambda connection: list(map(_version, connection.execute(_LATEST, {"limit": limit})))
        )

    def show(self, number: int) -> PolicyVersion:
        """One of them. Raises `PolicyUnknown`."""
        return self._database.read(lambda connection: _found(connection, number))

    def current(self, now: datetime) -> PolicyVersion | None:
        """In force now; None: the configuration's."""
        return self.at(now)

    def at(self, moment: datetime) -> PolicyVersion | None:
        """In force at that moment; None: the configuration's, as it stood then."""
        row = self._database.read(lambda connection: connection.execute(_AT, {"moment": moment}).one_or_none())
        return None if row is None else _version(row)


def _found(connection: Connection, number: int) -> PolicyVersion:
    row = connection.execute(_BY_NUMBER, {"wanted": number}).one_or_none()
    if row is None:
        raise PolicyUnknown(f"policy {number} is not known here; `hilum policy list` shows those that are")
    return _version(row)


def _version(row: Any) -> PolicyVersion:
    return PolicyVersion(
        number=row.number,
        policy=policy_from_json(row.body),
        note=row.note,
        made_by=row.made_by,
        made_at=row.made_at,
        effective_at=row.effective_at,
        enacted_by=row.enacted_by,
        enacted_because=row.enacted_because,
        followed=row.followed,
    )


def why(because: str) -> str:
    """Why a policy comes into force, as it is kept. Raises `ConfigurationError` where nothing is said, or too much."""
    words = _proper(because)
    if not words:
        raise ConfigurationError("say why this policy is put into force: the note stands in its history")
    return words


def _proper(note: str) -> str:
    words = clean(note.strip())
    if len(words) > LONGEST:
        raise ConfigurationError(f"note: longer than {LONGEST} characters")
    return words
