"""Who was turned away at the DICOM door; the same again only counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from schemas.identity import Sender
from schemas.rejection import Rejection
from schemas.tables import RejectionRow
from worker.record.database import Database
from worker.record.shapes import clean

KEPT: Final = 1000  # kinds; a scanner of ports that calls itself differently each time leaves no more than that
LONGEST: Final = 500  # characters of a text that a stranger may have chosen

_KIND: Final = (
    RejectionRow.calling_ae == bindparam("calling"),
    RejectionRow.called_ae == bindparam("called"),
    RejectionRow.address == bindparam("from"),
    RejectionRow.what == bindparam("kind"),
)
_AGAIN: Final = (
    update(RejectionRow)
    .where(*_KIND)
    .values(count=RejectionRow.count + 1, last_at=bindparam("at"), mend=bindparam("how"))
)
_NEW: Final = insert(RejectionRow)
_RECENT: Final = select(RejectionRow).order_by(RejectionRow.last_at.desc(), RejectionRow.id.desc())
_FORGET: Final = delete(RejectionRow).where(
    RejectionRow.id.in_(
        select(RejectionRow.id).order_by(RejectionRow.last_at.desc(), RejectionRow.id.desc()).offset(KEPT).limit(KEPT)
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectionKind:
    """Refusals of one peer for one reason."""

    sender: Sender
    what: str
    mend: str
    count: int
    first_at: datetime
    last_at: datetime


class Rejections:
    """Who was turned away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rejection: Rejection) -> None:
        """Count it. Raises `RecordError`."""
        sender = rejection.sender
        calling, called, address, what, mend = (
            clean(text)[:LONGEST]
            for text in (sender.calling_ae, sender.called_ae, sender.address, rejection.what, rejection.mend)
        )

        def work(connection: Connection) -> None:
            kind = {"calling": calling, "called": called, "from": address, "kind": what}
            if connection.execute(_AGAIN, {**kind, "how": mend, "at": rejection.at}).rowcount:
                return
            connection.execute(
                _NEW,
                {
                    "calling_ae": calling,
                    "called_ae": called,
                    "address": address,
                    "what": what,
                    "mend": mend,
                    "count": 1,
                    "first_at": rejection.at,
                    "last_at": rejection.at,
                },
            )
            connection.execute(_FORGET)

        self._database.write(work)

    def recent(self, limit: int) -> list[RejectionKind]:
        """The latest first."""

        def work(connection: Connection) -> list[RejectionKind]:
            return [
                RejectionKind(
                    sender=Sender(calling_ae=row.calling_ae, called_ae=row.called_ae, address=row.address),
                    what=row.what,
                    mend=row.mend,
                    count=row._mapping["count"],  # Row has a method of that name
                    first_at=row.first_at,
                    last_at=row.last_at,
                )
                for row in connection.execute(_RECENT.limit(limit))
            ]

        return self._database.read(work)
