"""What must be told to whom: each destination's flags, the most urgent first, a study's own in order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, case, exists, func, or_, select, true, update
from sqlalchemy.orm import aliased

from schemas.decision import Urgency
from schemas.errors import LeaseLost
from schemas.flag import Flag, Receipt, Withdrawal
from schemas.identity import StudyContext
from schemas.lifecycle import OutboxState
from schemas.tables import OutboxRow, Revision, Study
from worker.record.database import Database
from worker.record.overtaken import overtake
from worker.record.pauses import NOT_HELD
from worker.record.rows import by_study, lapsed, lock_studies, one_of, touch_studies, word
from worker.record.shapes import clean, film_from_json, reasons_from_json

# Far more than restarts, or a machine that is out of memory, kill in a row in the middle of one flag.
MAX_DEATHS: Final = 50
_DEADLY: Final = "{} senders were lost while they sent it; see the log, then replay"
_DONE: Final = (OutboxState.SENT, OutboxState.REFUSED, OutboxState.SUPERSEDED)
_earlier = aliased(OutboxRow)
_other = aliased(OutboxRow)
_told = aliased(Revision)
# A study's flags arrive in the order in which they were decided. "Not done", because no index answers that: the few
# flags of the study are looked at, never the queue, however long it has grown while a destination was away.
_FREE: Final = (
    OutboxRow.state == word(OutboxState.PENDING),
    OutboxRow.destination == bindparam("to"),
    ~exists().where(
        _earlier.study_id == OutboxRow.study_id,
        _earlier.destination == OutboxRow.destination,
        _earlier.revision < OutboxRow.revision,
        ~one_of(_earlier.state, _DONE),
    ),
)
_TAKEN_BEFORE: Final = (
    _other.study_id == OutboxRow.study_id,
    _other.destination == OutboxRow.destination,
    _other.revision < OutboxRow.revision,
    _other.sent_at.is_not(None),  # whatever became of a replay
)
_PREDECESSOR: Final = select(func.max(_other.revision)).where(*_TAKEN_BEFORE).scalar_subquery().label("predecessor")
_PREDECESSOR_OBJECT: Final = (
    select(_other.object_id)
    .where(*_TAKEN_BEFORE)
    .order_by(_other.revision.desc())
    .limit(1)
    .scalar_subquery()
    .label("predecessor_object_id")
)
_PREDECESSOR_MODEL: Final = (
    select(_told.model_id)
    .join(_other, _other.revision_id == _told.id)
    .where(*_TAKEN_BEFORE)
    .order_by(_other.revision.desc())
    .limit(1)
    .scalar_subquery()
    .label("predecessor_model_id")
)
_CLAIMABLE: Final = (
    select(
        OutboxRow.id,
        OutboxRow.attempts,
        Study.study_uid,
        Revision.revision,
        Revision.urgency,
        Revision.snapshot,
        Revision.model_id,
        Revision.model_name,
        Revision.model_version,
        Revision.decided_at,
        Revision.withdrawn,
        _PREDECESSOR,
        _PREDECESSOR_MODEL,
        _PREDECESSOR_OBJECT,
    )
    .join(Revision, Revision.id == OutboxRow.revision_id)
    .join(Study, Study.id == OutboxRow.study_id)
    .where(*_FREE, OutboxRow.next_attempt_at <= bindparam("now"), NOT_HELD)
    .order_by(OutboxRow.urgency.desc(), OutboxRow.created_at, OutboxRow.id)
    .limit(bindparam("limit"))
    .with_for_update(of=OutboxRow, skip_locked=True)
)
_CLAIM: Final = (
    update(OutboxRow)
    .where(OutboxRow.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=word(OutboxState.SENDING),
        attempts=OutboxRow.attempts + 1,
        lease_owner=bindparam("worker"),
        lease_until=bindparam("until"),
    )
)
_STUDY_OF: Final = select(OutboxRow.study_id).where(OutboxRow.id == bindparam("delivery"))
_MOVE: Final = (
    update(OutboxRow)
    .where(OutboxRow.id == bindparam("delivery"), OutboxRow.lease_owner == bindparam("worker"))
    .values(lease_owner=None, lease_until=None, deaths=0)
)
_SENT: Final = _MOVE.values(
    state=word(OutboxState.SENT),
    object_id=bindparam("object"),
    proof=bindparam("word"),
    sent_at=func.coalesce(OutboxRow.sent_at, bindparam("now")),  # first taken; a replay changes nothing of that
    # Nor of when it was proven, unless its proof has to come anew.
    proven_at=case((bindparam("is_proven"), func.coalesce(OutboxRow.proven_at, bindparam("now"))), else_=None),
    last_error=None,
)
# As if it had never been claimed: what was not tried may be superseded.
_BACK: Final = (
    update(OutboxRow)
    .where(OutboxRow.id.in_(bindparam("ids", expanding=True)), OutboxRow.lease_owner == bindparam("worker"))
    .values(state=word(OutboxState.PENDING), attempts=OutboxRow.attempts - 1, lease_owner=None, lease_until=None)
)
_STUDIES_OF: Final = select(OutboxRow.study_id).where(OutboxRow.id.in_(bindparam("ids", expanding=True)))
_RETRY: Final = _MOVE.values(
    state=word(OutboxState.PENDING), last_error=bindparam("error"), next_attempt_at=bindparam("not_before")
)
_REFUSE: Final = _MOVE.values(state=word(OutboxState.REFUSED), last_error=bindparam("error"))
_NEXT_DUE: Final = select(func.min(OutboxRow.next_attempt_at)).where(*_FREE)
_OWNERS: Final = select(OutboxRow.lease_owner).where(OutboxRow.state == word(OutboxState.SENDING)).distinct()
_UNFINISHED: Final = (OutboxState.PENDING, OutboxState.SENDING, OutboxState.REFUSED)
_COUNTS: Final = (
    select(OutboxRow.destination, OutboxRow.state, func.count())
    .where(one_of(OutboxRow.state, _UNFINISHED))
    .group_by(OutboxRow.state, OutboxRow.destination)
)


_WAITING: Final = (
    select(OutboxRow.destination, func.min(OutboxRow.created_at).label("since"))
    .where(one_of(OutboxRow.state, (OutboxState.PENDING, OutboxState.SENDING)))
    .group_by(OutboxRow.destination)
)
_REFUSALS: Final = (
    select(
        OutboxRow.destination,
        OutboxRow.last_error.label("words"),
        func.count().label("flags"),
        func.max(OutboxRow.urgency).label("urgency"),
        func.min(OutboxRow.created_at).label("since"),
    )
    .where(OutboxRow.state == word(OutboxState.REFUSED))
    .group_by(OutboxRow.destination, OutboxRow.last_error)
    .order_by(func.max(OutboxRow.urgency).desc(), func.min(OutboxRow.created_at))
    .limit(bindparam("limit"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusals:
    """Flags that a destination refused with the same words, which name the mend."""

    destination: str
    words: str
    flags: int
    urgency: Urgency  # the highest of them
    since: datetime  # when the first of them was decided


_later: Final = aliased(OutboxRow)
_IS_TAKEN_BACK: Final = exists().where(
    Study.id == OutboxRow.study_id,
    Study.revision > OutboxRow.revision,
    or_(Study.withdrawn.is_not(None), Study.reported_at >= OutboxRow.created_at),
)
_SAYS_ALL: Final = ~_IS_TAKEN_BACK & ~exists().where(
    _later.study_id == OutboxRow.study_id,
    _later.destination == OutboxRow.destination,
    _later.revision > OutboxRow.revision,
)
# A flag that was taken once and is told again for a person's sake is not overdue, nor one whose successor was taken or
# that was withdrawn: then the withdrawal is.
_LATE: Final = (
    OutboxRow.created_at <= bindparam("before"),
    one_of(OutboxRow.state, _UNFINISHED),
    or_(OutboxRow.sent_at.is_(None), OutboxRow.state == word(OutboxState.REFUSED)),
    ~exists().where(
        _later.study_id == OutboxRow.study_id,
        _later.destination == OutboxRow.destination,
        _later.revision > OutboxRow.revision,
        _later.state == word(OutboxState.SENT),
    ),
    ~_IS_TAKEN_BACK,
)
_IS_REFUSED: Final = case((OutboxRow.state == word(OutboxState.REFUSED), 1), else_=0)
_OVERDUE: Final = (
    select(
        OutboxRow.destination,
        _IS_REFUSED.label("refused"),
        func.count().label("flags"),
        func.min(OutboxRow.created_at).label("since"),
    )
    .where(*_LATE)
    .group_by(OutboxRow.destination, _IS_REFUSED)
    .order_by(OutboxRow.destination, _IS_REFUSED)
)
_ERROR_OF: Final = (
    select(OutboxRow.last_error)
    .where(
        *_LATE,
        OutboxRow.destination == bindparam("to"),
        bindparam("as_refused") == _IS_REFUSED,
        OutboxRow.last_error.is_not(None),
    )
    .order_by(OutboxRow.next_attempt_at.desc())
    .limit(1)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """A destination that has not got flags which were decided some time ago."""

    destination: str
    refused: bool = False  # set aside for a person; else they wait or are under way
    flags: int
    since: datetime  # when the first of them was decided
    last_error: str  # empty: none was reported


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A flag that this worker is to send before its lease lapses."""

    id: int
    flag: Flag
    attempt: int  # from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A flag that its destination has taken."""

    id: int
    receipt: Receipt
    at: datetime


class Outbox:
    """What must be told to whom."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, destination: str, worker: str, limit: int, lease: timedelta, now: datetime) -> list[Delivery]:
        """Take up to `limit` flags that are due: by urgency, then as decided; of a study only the earliest.

        While flags are paused (`worker.record.pauses`) withdrawals alone are due.
        The flag's predecessor is the last revision that this destination is known to have taken.
        """

        def work(connection: Connection) -> list[Delivery]:
            rows = connection.execute(_CLAIMABLE, {"to": destination, "now": now, "limit": limit}).all()
            if rows:
                connection.execute(_CLAIM, {"ids": [r.id for r in rows], "worker": worker, "until": now + lease})
            return [_delivery(row) for row in rows]

        return self._database.write(work)

    def settle(self, worker: str, sent: Collection[Sent], untried: Collection[int] = ()) -> set[int]:
        """Destinations have the flags that were `sent`; those that were claimed and never tried go back.

        Returns those that are not this worker's any more: somebody else sends the same objects again, which is safe.
        """
        ids = {"ids": [*(flag.id for flag in sent), *untried]}

        def work(connection: Connection) -> set[int]:
            studies = connection.scalars(_STUDIES_OF, ids).all()
            lock_studies(connection, studies)
            touch_studies(connection, studies)
            if untried:
                connection.execute(_BACK, {"ids": list(untried), "worker": worker})
                overtake(connection, studies)
            return {flag.id for flag in sent if connection.execute(_SENT, _taken(flag, worker)).rowcount != 1}

        return self._database.write(work)

    def sent(self, delivery: int, worker: str, receipt: Receipt, now: datetime) -> None:
        """The destination has it. Raises `LeaseLost`; then somebody else sends the same object again, which is safe."""
        if self.settle(worker, [Sent(id=delivery, receipt=receipt, at=now)]):
            raise LeaseLost(f"delivery {delivery}")

    def retry(self, delivery: int, worker: str, error: str, not_before: datetime) -> None:
        """A passing fault: wait until `not_before`. Raises `LeaseLost`."""
        self._move(_RETRY, delivery, worker, {"error": clean(error), "not_before": not_before})

    def refuse(self, delivery: int, worker: str, error: str, now: datetime) -> None:
        """A lasting fault: set aside until `replay`. Raises `LeaseLost`."""
        self._move(_REFUSE, delivery, worker, {"error": clean(error)})

    def committed(
        self,
        object_id: str,
        *,
        kept: bool,
        words: str,
        now: datetime,
        destinations: Collection[str] | None = None,
    ) -> int:
        """What a PACS answers to a request for Storage Commitment of an object that it was sent; returns how many rows.

        What it does not keep is set aside like a refusal, to be replayed when the PACS has been mended. Two PACS get
        the same object of the same flag: `destinations` are those for which this one may answer, all when None.
        """
        here = [OutboxRow.object_id == object_id, OutboxRow.state == word(OutboxState.SENT)]
        if destinations is not None:
            here.append(OutboxRow.destination.in_(sorted(destinations)))
        values = (
            {"proof": OutboxRow.proof + "; " + clean(words), "proven_at": now}
            if kept
            else {"state": OutboxState.REFUSED.value, "last_error": clean(words), "proven_at": None}
        )

        def work(connection: Connection, studies: list[int]) -> int:
            touch_studies(connection, studies)
            rows = (*here, OutboxRow.study_id.in_(studies), OutboxRow.proven_at.is_(None))
            return connection.execute(update(OutboxRow).where(*rows).values(**values)).rowcount

        return by_study(self._database, select(OutboxRow.study_id).where(*here), work)

    def _move(self, statement: Any, delivery: int, worker: str, values: dict[str, Any]) -> None:
        def work(connection: Connection) -> None:
            studies = connection.scalars(_STUDY_OF, {"delivery": delivery}).all()
            touch_studies(connection, studies)
            if connection.execute(statement, {"delivery": delivery, "worker": worker, **values}).rowcount != 1:
                raise LeaseLost(f"delivery {delivery}")
            overtake(connection, studies)

        self._database.write(work)

    def owners(self) -> set[str]:
        """Who is sending now."""
        return self._database.read(lambda connection: {str(o) for o in connection.scalars(_OWNERS)})

    def rescue(self, now: datetime, dead: Collection[str] = (), max_deaths: int = MAX_DEATHS) -> int:
        """Give back flags whose lease lapsed or whose sender is among the `dead`; returns how many.

        One that cost `max_deaths` senders, one after another, is set aside for a person: it may be what kills them.
        """
        over = (OutboxRow.state == word(OutboxState.SENDING), lapsed(OutboxRow, now, dead))
        free = {"lease_owner": None, "lease_until": None, "deaths": OutboxRow.deaths + 1}
        back = {"state": OutboxState.PENDING.value, "next_attempt_at": now, **free}
        deadly = {"state": OutboxState.REFUSED.value, "last_error": _DEADLY.format(max_deaths), **free}

        def work(connection: Connection, studies: list[int]) -> int:
            here = (OutboxRow.study_id.in_(studies), *over)
            count = 0
            for values, which in ((deadly, OutboxRow.deaths + 1 >= max_deaths), (back, true())):
                count += connection.execute(update(OutboxRow).where(*here, which).values(**values)).rowcount
            touch_studies(connection, studies)
            overtake(connection, studies)
            return count

        return by_study(self._database, select(OutboxRow.study_id).where(*over), work)

    def replay(
        self,
        destination: str | None = None,
        study_uid: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        states: Collection[OutboxState] = (OutboxState.REFUSED, OutboxState.SENT),
    ) -> int:
        """Send again what was sent or refused; returns how many flags.

        Of each study and destination only the latest revision: it says all, and an older one must not come after it.
        Of a withdrawn flag nothing but the withdrawal. What was refused and is not sent again for that, is let go.
        """
        which = [one_of(OutboxRow.state, sorted(set(states) & {OutboxState.REFUSED, OutboxState.SENT}))]
        if destination is not None:
            which.append(OutboxRow.destination == destination)
        if study_uid is not None:
            which.append(OutboxRow.study_id == select(Study.id).where(Study.study_uid == study_uid).scalar_subquery())
        if since is not None:
            which.append(OutboxRow.created_at >= since)
        if until is not None:
            which.append(OutboxRow.created_at < until)

        def work(connection: Connection, studies: list[int]) -> int:
            here = (OutboxRow.study_id.in_(studies), *which)
            again = {"state": OutboxState.PENDING.value, "next_attempt_at": OutboxRow.created_at, "deaths": 0}
            let_go = {"state": OutboxState.SUPERSEDED.value}
            dead = (OutboxRow.state == word(OutboxState.REFUSED), ~_SAYS_ALL)
            touch_studies(connection, studies)
            connection.execute(update(OutboxRow).where(*here, *dead).values(**let_go))
            return connection.execute(update(OutboxRow).where(*here, _SAYS_ALL).values(**again)).rowcount

        return by_study(self._database, select(OutboxRow.study_id).where(*which), work)

    def next_due(self, destination: str) -> datetime | None:
        """When the next flag may be claimed; None when none waits."""
        return self._database.read(lambda connection: connection.scalar(_NEXT_DUE, {"to": destination}))

    def waiting_since(self) -> dict[str, datetime]:
        """Of each destination that has not got everything: when the first of what waits or is under way was decided."""
        return self._database.read(lambda connection: {r.destination: r.since for r in connection.execute(_WAITING)})

    def overdue(self, before: datetime) -> list[Overdue]:
        """The destinations that have not got flags which were decided until `before`, by name; what waits, then what
        was refused."""

        def work(connection: Connection) -> list[Overdue]:
            return [
                Overdue(
                    destination=row.destination,
                    refused=bool(row.refused),
                    flags=row.flags,
                    since=row.since,
                    last_error=connection.scalar(
                        _ERROR_OF, {"before": before, "to": row.destination, "as_refused": row.refused}
                    )
                    or "",
                )
                for row in connection.execute(_OVERDUE, {"before": before}).all()
            ]

        return self._database.read(work)

    def refusals(self, limit: int) -> list[Refusals]:
        """What was set aside for a person, by destination and words, the most urgent first."""

        def work(connection: Connection) -> list[Refusals]:
            return [
                Refusals(
                    destination=row.destination,
                    words=row.words or "",
                    flags=row.flags,
                    urgency=Urgency(row.urgency),
                    since=row.since,
                )
                for row in connection.execute(_REFUSALS, {"limit": limit})
            ]

        return self._database.read(work)

    def counts(self) -> dict[str, dict[OutboxState, int]]:
        """How many flags of each destination wait, are under way, or were refused."""

        def work(connection: Connection) -> dict[str, dict[OutboxState, int]]:
            counts: dict[str, dict[OutboxState, int]] = {}
            for destination, state, count in connection.execute(_COUNTS):
                counts.setdefault(destination, dict.fromkeys(_UNFINISHED, 0))[OutboxState(state)] = count
            return counts

        return self._database.read(work)


def _taken(flag: Sent, worker: str) -> dict[str, Any]:
    return {
        "delivery": flag.id,
        "worker": worker,
        "object": clean(flag.receipt.object_id),
        "word": clean(flag.receipt.proof),
        "now": flag.at,
        "is_proven": flag.receipt.proven,
    }


def _delivery(row: Row[Any]) -> Delivery:
    flag = Flag(
        study_uid=row.study_uid,
        revision=row.revision,
        urgency=Urgency(row.urgency),
        reasons=reasons_from_json(row.snapshot["reasons"]),
        films=tuple(film_from_json(film) for film in row.snapshot["films"]),
        context=StudyContext(**row.snapshot["context"]),
        model_id=row.model_id,
        model_name=row.model_name,
        model_version=row.model_version,
        decided_at=row.decided_at,
        predecessor=row.predecessor,
        predecessor_model_id=row.predecessor_model_id or "",
        predecessor_object_id=row.predecessor_object_id or "",
        withdrawn=None if row.withdrawn is None else Withdrawal(row.withdrawn),
        order_urgency=Urgency(row.snapshot.get("order_urgency", 0)),  # older snapshots have none
    )
    return Delivery(id=row.id, flag=flag, attempt=row.attempts + 1)
