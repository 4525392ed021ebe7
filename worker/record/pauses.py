"""Flags held back on a person's word, or by the drift watch; every courier of every process heeds it at once.

While flags are paused no destination is told of a new one: what is decided waits in the outbox, and the couriers' own
claim looks here, so that none needs to be reached. Films are received, read and recorded as ever, and the list goes on
ordering by what was read, with a notice above it. Withdrawals go out: they take back what somebody may act upon.
On resuming, what still holds is told, the most urgent first; what was read or taken back meanwhile is not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, or_, select, true

from schemas.tables import PauseRow, Revision
from schemas.watching import Pause, Spell
from worker.record.database import Database
from worker.record.shapes import clean

_LATEST: Final = select(PauseRow).order_by(PauseRow.id.desc()).limit(bindparam("limit"))
_IS_PAUSED: Final = select(PauseRow.paused).order_by(PauseRow.id.desc()).limit(1).scalar_subquery()
# Of an outbox row beside its revision: whether it may go out now.
NOT_HELD: Final = or_(func.coalesce(_IS_PAUSED, False) != true(), Revision.withdrawn.is_not(None))


class Pauses:
    """When flags were held back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pause(self, who: str, why: str, now: datetime) -> bool:
        """Hold flags back from now on; False where they are held back already."""
        return self._say(who, why, now, paused=True)

    def resume(self, who: str, because: str, now: datetime) -> bool:
        """Let them go; False where they are not held back."""
        return self._say(who, because, now, paused=False)

    def current(self) -> Pause | None:
        """The pause that holds now."""

        def work(connection: Connection) -> Pause | None:
            row = connection.execute(_LATEST, {"limit": 1}).one_or_none()
            return Pause(at=row.at, who=row.who, why=row.why) if row is not None and row.paused else None

        return self._database.read(work)

    def spells(self, limit: int) -> list[Spell]:
        """The latest pauses, the last first, each with who ended it."""
        rows = self._database.read(lambda c: c.execute(_LATEST, {"limit": 2 * limit}).all())
        spells: list[Spell] = []
        end = None
        for row in rows:
            if not row.paused:
                end = row
                continue
            pause = Pause(at=row.at, who=row.who, why=row.why)
            if end is None:
                spells.append(Spell(pause=pause))
            else:
                spells.append(Spell(pause=pause, resumed_at=end.at, resumed_by=end.who, because=end.why))
            end = None
        return spells[:limit]

    def _say(self, who: str, why: str, now: datetime, *, paused: bool) -> bool:
        values = {"at": now, "who": clean(who), "paused": paused, "why": clean(why)}

        def work(connection: Connection) -> bool:
            row = connection.execute(_LATEST, {"limit": 1}).one_or_none()
            if (row is not None and row.paused) is paused:
                return False
            connection.execute(insert(PauseRow).values(**values))
            return True

        return self._database.write(work)
