"""The audit trail: who looked at what, who changed what. Lines are added, never changed, never removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert, select

from schemas.person import Deed
from schemas.tables import DeedRow
from worker.record.database import Database
from worker.record.shapes import clean

COMMAND_LINE: Final = "command line"
_ADD: Final = insert(DeedRow)


class Audit:
    """The audit trail."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(
        self,
        who: str,
        action: str,
        now: datetime,
        *,
        study_uid: str = "",
        detail: Mapping[str, Any] | None = None,
        address: str = "",
    ) -> None:
        """Add a line; when this returns it is on the disk. `detail` holds no patient's name."""
        values = {
            "at": now,
            "who": clean(who),
            "action": clean(action),
            "study_uid": clean(study_uid),
            "detail": _clean(dict(detail or {})),
            "address": clean(address),
        }
        self._database.write(lambda connection: connection.execute(_ADD, values))

    def deeds(
        self, limit: int, *, before: int | None = None, who: str = "", action: str = "", study_uid: str = ""
    ) -> list[tuple[int, Deed]]:
        """The latest first, each with its number; those `before` a number, to read on."""
        found = select(DeedRow).order_by(DeedRow.id.desc()).limit(limit)
        if before is not None:
            found = found.where(DeedRow.id < before)
        for column, wanted in ((DeedRow.who, who), (DeedRow.action, action), (DeedRow.study_uid, study_uid)):
            if wanted:
                found = found.where(column == clean(wanted))
        rows = self._database.read(lambda connection: connection.execute(found).all())
        return [
            (
                row.id,
                Deed(
                    at=row.at,
                    who=row.who,
                    action=row.action,
                    study_uid=row.study_uid,
                    detail=row.detail,
                    address=row.address,
                ),
            )
            for row in rows
        ]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list | tuple) else value
