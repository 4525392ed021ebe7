"""What is still here of what was received, by SOP Instance UID: for whoever asks whether he may delete his own copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select

from schemas.tables import Job
from worker.record.database import Database

_VERSIONS: Final = select(Job.sop_uid, Job.sop_class, Job.path).where(
    Job.sop_uid.in_(bindparam("uids", expanding=True)), Job.current
)
_CHUNK: Final = 1000  # instances in one statement


class Kept:
    """Where the bytes of instances are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, sop_uids: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str | None]]]:
        """SOP class and spool file of each instance, None where its bytes were let go; what is not known is not there.

        An instance is several where films of two studies came under the same UID.
        """

        def work(connection: Connection) -> dict[str, list[tuple[str, str | None]]]:
            found: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
            for start in range(0, len(sop_uids), _CHUNK):
                for row in connection.execute(_VERSIONS, {"uids": list(sop_uids[start : start + _CHUNK])}):
                    found[row.sop_uid].append((row.sop_class, row.path))
            return found

        return self._database.read(work)
