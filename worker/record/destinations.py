"""How each destination does: said by the couriers, read by whoever looks, from any process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.standing import Line, Standing
from schemas.tables import DestinationRow
from worker.record.database import Database
from worker.record.shapes import clean

_VALUES: Final = ("line", "failures", "since", "next_trial_at", "last_error")
_NOTE: Final = (
    update(DestinationRow)
    .where(DestinationRow.name == bindparam("destination"))
    .values({key: bindparam(f"new_{key}") for key in _VALUES})
)


class Destinations:
    """One line for each destination that a courier has ever served."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, standing: Standing) -> None:
        """This is how it does now. Of several couriers of one destination the last word counts."""
        said: dict[str, Any] = {key: asdict(standing)[key] for key in _VALUES}
        said |= {"line": standing.line.value, "last_error": clean(standing.last_error)}

        def work(connection: Connection) -> None:
            values = {f"new_{key}": value for key, value in said.items()}
            if not connection.execute(_NOTE, {"destination": standing.destination, **values}).rowcount:
                connection.execute(insert(DestinationRow).values(name=standing.destination, **said))

        self._database.write(work)

    def standings(self) -> dict[str, Standing]:
        """By name; one that has never been served is not among them."""

        def work(connection: Connection) -> dict[str, Standing]:
            return {
                row.name: Standing(
                    destination=row.name,
                    line=Line(row.line),
                    failures=row.failures,
                    since=row.since,
                    next_trial_at=row.next_trial_at,
                    last_error=row.last_error,
                )
                for row in connection.execute(select(DestinationRow).order_by(DestinationRow.name))
            }

        return self._database.read(work)
