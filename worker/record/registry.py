"""The registry of models: which is live, how it came to be, and which process reads with which.

Whoever moves a model locks the whole of the small table `models` first: one is live, whatever is asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from schemas.card import ModelCard, card_from_json, model_id
from schemas.errors import RecordError
from schemas.registry import (
    MODEL_MOVES,
    Check,
    LiveSpell,
    ModelAction,
    ModelEvent,
    ModelReader,
    ModelState,
    RegisteredModel,
    Service,
    kept_of,
)
from schemas.tables import ModelEventRow, ModelReaderRow, ModelRow
from worker.record.database import Database
from worker.record.promotion import gate
from worker.record.rows import one_of, word
from worker.record.shapes import clean

SPELLS: Final = 1000  # that are gone through for "what was live"
WORDS: Final = 2000  # characters of a reason
FORGET_READERS: Final = timedelta(days=7)

_ALL: Final = select(ModelRow).order_by(ModelRow.added_at.desc(), ModelRow.model_id)
_LOCK: Final = select(ModelRow).order_by(ModelRow.model_id).with_for_update()
_IN_SERVICE: Final = select(ModelRow).where(one_of(ModelRow.state, (ModelState.LIVE, ModelState.SHADOW)))
_MOVE: Final = (
    update(ModelRow)
    .where(ModelRow.model_id == bindparam("model"))
    .values(state=bindparam("to"), changes=ModelRow.changes + 1)
)
_EVENTS: Final = (
    select(ModelEventRow)
    .where(ModelEventRow.id < bindparam("before"))
    .order_by(ModelEventRow.id.desc())
    .limit(bindparam("limit"))
)
_LIVES: Final = (
    select(ModelEventRow)
    .where(ModelEventRow.to_state == word(ModelState.LIVE))
    .order_by(ModelEventRow.id.desc())
    .limit(SPELLS)
)
_TOKEN: Final = select(func.count(), func.sum(ModelRow.changes))
_LAST: Final = 1 << 62  # greater than any row's number


class Registry:
    """Which models there are, and which of them reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────

    def models(self) -> list[RegisteredModel]:
        """All of them, the latest first."""
        return self._database.read(lambda connection: [_model(row) for row in connection.execute(_ALL)])

    def find(self, name: str) -> RegisteredModel:
        """By model id, or by the name of its bundle. Raises `RecordError` when it is not known."""
        for model in self.models():
            if name in (model.model_id, model.bundle):
                return model
        raise RecordError(f"model {name!r} is not in the registry; `hilum models registry` shows those that are")

    def service(self) -> Service | None:
        """What should read now; None: nothing has ever been live."""

        def work(connection: Connection) -> Service | None:
            by_state = {row.state: _model(row) for row in connection.execute(_IN_SERVICE)}
            live = by_state.get(ModelState.LIVE)
            return None if live is None else Service(live=live, shadow=by_state.get(ModelState.SHADOW))

        return self._database.read(work)

    def wanted(self) -> tuple[str | None, str | None]:
        """Ids of the live model and of the shadow: cheap enough to be asked every second."""

        def work(connection: Connection) -> tuple[str | None, str | None]:
            columns = _IN_SERVICE.with_only_columns(ModelRow.state, ModelRow.model_id)
            ids = {row.state: str(row.model_id) for row in connection.execute(columns)}
            return ids.get(ModelState.LIVE), ids.get(ModelState.SHADOW)

        return self._database.read(work)

    def history(self, limit: int = 100, before: int | None = None, model: str | None = None) -> list[ModelEvent]:
        """The latest first; `before`: those with a smaller number."""
        statement = _EVENTS if model is None else _EVENTS.where(ModelEventRow.model_id == model)
        values = {"limit": limit, "before": _LAST if before is None else before}
        return self._database.read(lambda c: [_event(row) for row in c.execute(statement, values)])

    def live_at(self, moment: datetime) -> LiveSpell | None:
        """Which model was live at `moment`, since when and until when, and what the readers told of it in that spell.

        None: none was yet.
        """

        def work(connection: Connection) -> LiveSpell | None:
            until: datetime | None = None
            for row in connection.execute(_LIVES):
                if row.at <= moment:
                    return _spell(connection, row, until)
                until = row.at
            return None

        return self._database.read(work)

    def change_token(self) -> str:
        """A value that differs from an earlier one whenever a model was added or moved."""
        return self._database.read(lambda c: ".".join(str(part or 0) for part in c.execute(_TOKEN).one()))

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────────────────

    def first(self, bundle: str, card: ModelCard, now: datetime, proofs: Sequence[Check] = ()) -> RegisteredModel:
        """The live model; where nothing has ever been live, the configured bundle, which is from now on.

        Parameters
        ----------
        bundle:
            Its name in the store, or its folder.
        proofs:
            What its golden vectors gave.
        """

        def work(connection: Connection) -> RegisteredModel:
            models = _locked(connection)
            for model in models.values():
                if model.state is ModelState.LIVE:
                    return model
            there = models.get(model_id(card))
            if there is None:
                there = _add(connection, bundle, card, now)
            _move(
                connection,
                there,
                ModelState.LIVE,
                who="configuration",
                why="[model] bundle, the first",
                now=now,
                action=ModelAction.ADDED,
                checks=proofs,
            )
            return replace(there, state=ModelState.LIVE)

        return self._database.write(work)

    def add(
        self, bundle: str, card: ModelCard, *, who: str, why: str, now: datetime, proofs: Sequence[Check]
    ) -> RegisteredModel:
        """Enter a bundle as a candidate; one that was measured or calibrated anew since then gets its new card.

        Parameters
        ----------
        proofs:
            What its golden vectors gave on each runtime, and the parity of two: the gate asks for them.

        Raises
        ------
        RecordError
            The model is in the registry already with this card, or it reads, and its card must stay as it is.
        """

        def work(connection: Connection) -> RegisteredModel:
            there = _locked(connection).get(model_id(card))
            added = _renew(connection, there, bundle, card) if there else _add(connection, bundle, card, now)
            _write(
                connection,
                added.model_id,
                who=who,
                action=ModelAction.ADDED,
                moved=(None, None) if there else (None, ModelState.CANDIDATE),
                why=why,
                now=now,
                checks=proofs,
            )
            return added

        return self._database.write(work)

    def move(self, model: str, to: ModelState, *, who: str, why: str, now: datetime) -> None:
        """Into the shadow, back among the candidates, or out of use. Live a model becomes by `promote`.

        Raises
        ------
        RecordError
            No such model, it cannot go there from where it is, or another is the shadow already.
        """

        def work(connection: Connection) -> None:
            models = _locked(connection)
            found = _one(models, model)
            if to is ModelState.LIVE or found.state is ModelState.LIVE:
                raise RecordError(
                    f"model {model} is {found.state}: a model becomes live by promotion, and stops being it when "
                    "another does"
                )
            _may(found, to)
            if to is ModelState.SHADOW:
                for other in models.values():
                    if other.state is ModelState.SHADOW:
                        raise RecordError(
                            f"{other.name} {other.version} ({other.model_id}) reads along already: one at a time; "
                            "take it out of the shadow first"
                        )
            _move(connection, found, to, who=who, why=why, now=now)

        self._database.write(work)

    def judge(self, model: str, *, who: str, two_people: bool) -> list[Check]:
        """What `promote` would find."""
        return self._database.read(
            lambda c: _judge(c, {row.model_id: _model(row) for row in c.execute(_ALL)}, model, who, two_people)
        )

    def promote(
        self, model: str, *, instead_of: str, who: str, why: str, now: datetime, two_people: bool = False
    ) -> list[Check]:
        """The shadow becomes live, the live model retires, in one moment; returns the checks that it passed.

        Parameters
        ----------
        instead_of:
            The live model that it was compared with: if that is live no more, somebody was quicker.

        Raises
        ------
        RecordError
            It is not in the shadow, a check fails, or another model is live by now. Nothing was changed.
        """

        def work(connection: Connection) -> list[Check]:
            models = _locked(connection)
            found, live = _one(models, model), _live(models, instead_of)
            if found.state is not ModelState.SHADOW:
                raise RecordError(f"model {model} is {found.state}: only a model that reads along is promoted")
            checks = _judge(connection, models, model, who, two_people)
            failed = [f"{check.name}: {check.words}" for check in checks if not check.passed]
            if failed:
                raise RecordError(f"model {model} is not promoted. {'; '.join(failed)}")
            _move(connection, live, ModelState.RETIRED, who=who, why=f"{model} instead", now=now)
            _move(connection, found, ModelState.LIVE, who=who, why=why, now=now, checks=checks)
            return checks

        return self._database.write(work)

    def before(self) -> RegisteredModel | None:
        """The model that a roll back would make live; None: the live one is the first."""
        return self._database.read(
            lambda c: _before(c, {row.model_id: _model(row) for row in c.execute(_ALL)}),
        )

    def roll_back(self, *, instead_of: str, who: str, why: str, now: datetime) -> RegisteredModel:
        """The model that was live before is live again, the live one retires; returns the former.

        Raises
        ------
        RecordError
            Another than `instead_of` is live by now, or none was before.
        """

        def work(connection: Connection) -> RegisteredModel:
            models = _locked(connection)
            live = _live(models, instead_of)
            former = _before(connection, models)
            if former is None:
                raise RecordError(f"{live.name} {live.version} is the first: there is nothing to go back to")
            back = ModelAction.ROLLED_BACK
            _move(connection, live, ModelState.RETIRED, who=who, why=why, now=now, action=back)
            if former.state is not ModelState.RETIRED:  # taken up again since then: out of there first
                _move(connection, former, ModelState.RETIRED, who=who, why="to be live again", now=now)
                former = replace(former, state=ModelState.RETIRED)
            _move(connection, former, ModelState.LIVE, who=who, why=why, now=now, action=back)
            return replace(former, state=ModelState.LIVE)

        return self._database.write(work)

    # ── who reads with which ─────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, reader: str, model: str, action: ModelAction, why: str, now: datetime) -> None:
        """A process took the model up, or could not."""
        self._database.write(
            lambda connection: _write(
                connection, model, who=reader, action=action, moved=(None, None), why=why, now=now
            )
        )

    def report(self, reader: ModelReader) -> None:
        """How a process stands; those that have been silent for a week are forgotten."""
        values = asdict(reader) | {"fault": clean(reader.fault)[:WORDS]}
        gone = (ModelReaderRow.reader == reader.reader) | (ModelReaderRow.seen_at < reader.seen_at - FORGET_READERS)

        def work(connection: Connection) -> None:
            connection.execute(delete(ModelReaderRow).where(gone))
            connection.execute(insert(ModelReaderRow), values)

        self._database.write(work)

    def readers(self, since: datetime) -> list[ModelReader]:
        """Processes that were heard of since then."""
        statement = select(ModelReaderRow).where(ModelReaderRow.seen_at >= since).order_by(ModelReaderRow.reader)
        return self._database.read(lambda c: [ModelReader(**row._mapping) for row in c.execute(statement)])


def _locked(connection: Connection) -> dict[str, RegisteredModel]:
    return {row.model_id: _model(row) for row in connection.execute(_LOCK)}


def _one(models: Mapping[str, RegisteredModel], model: str) -> RegisteredModel:
    if model not in models:
        raise RecordError(f"model {model!r} is not in the registry; `hilum models registry` shows those that are")
    return models[model]


def _live(models: Mapping[str, RegisteredModel], expected: str) -> RegisteredModel:
    live = next((model for model in models.values() if model.state is ModelState.LIVE), None)
    if live is None:
        raise RecordError("no model is live yet: start a worker that reads, which enters the configured one")
    if live.model_id != expected:
        raise RecordError(
            f"{live.name} {live.version} ({live.model_id}) is live by now, not {expected}: look again, then decide"
        )
    return live


def _may(model: RegisteredModel, to: ModelState) -> None:
    if to not in MODEL_MOVES[model.state]:
        ways = ", ".join(sorted(MODEL_MOVES[model.state]))
        raise RecordError(f"model {model.model_id} is {model.state}: it cannot become {to}, only {ways}")


def _add(connection: Connection, bundle: str, card: ModelCard, now: datetime) -> RegisteredModel:
    row = {
        "model_id": model_id(card),
        "name": clean(card.name),
        "version": clean(card.version),
        "bundle": bundle,
        "state": ModelState.CANDIDATE.value,
        "added_at": now,
        "card": kept_of(card),
        "changes": 1,
    }
    connection.execute(insert(ModelRow), row)
    return _model(connection.execute(_ALL.where(ModelRow.model_id == row["model_id"])).one())


def _renew(connection: Connection, there: RegisteredModel, bundle: str, card: ModelCard) -> RegisteredModel:
    who = f"{there.name} {there.version} ({there.model_id})"
    if kept_of(there.card) == kept_of(card):
        raise RecordError(f"{who} is in the registry already, as {there.state}")
    if there.state in (ModelState.LIVE, ModelState.SHADOW):
        raise RecordError(f"{who} is {there.state}: what reads keeps its card")
    connection.execute(
        update(ModelRow)
        .where(ModelRow.model_id == there.model_id)
        .values(
            name=clean(card.name),
            version=clean(card.version),
            bundle=bundle,
            card=kept_of(card),
            changes=ModelRow.changes + 1,
        )
    )
    return _model(connection.execute(_ALL.where(ModelRow.model_id == there.model_id)).one())


def _move(
    connection: Connection,
    model: RegisteredModel,
    to: ModelState,
    *,
    who: str,
    why: str,
    now: datetime,
    action: ModelAction = ModelAction.MOVED,
    checks: Sequence[Check] = (),
) -> None:
    connection.execute(_MOVE, {"model": model.model_id, "to": to.value})
    moved = (model.state, to)
    _write(connection, model.model_id, who=who, action=action, moved=moved, why=why, now=now, checks=checks)


def _write(
    connection: Connection,
    model: str,
    *,
    who: str,
    action: ModelAction,
    moved: tuple[ModelState | None, ModelState | None],
    why: str,
    now: datetime,
    checks: Sequence[Check] = (),
) -> None:
    connection.execute(
        insert(ModelEventRow),
        {
            "at": now,
            "model_id": model,
            "who": clean(who)[:200],
            "action": action.value,
            "from_state": moved[0],
            "to_state": moved[1],
            "why": clean(why)[:WORDS],
            "checks": [asdict(check) for check in checks],
        },
    )


def _before(connection: Connection, models: Mapping[str, RegisteredModel]) -> RegisteredModel | None:
    """A promotion is undone by a roll back, and what is below comes to light."""
    lives: list[str] = []
    for row in reversed(connection.execute(_LIVES).all()):
        if row.action == ModelAction.ROLLED_BACK:
            del lives[-1:]
        else:
            lives.append(row.model_id)
    return models[lives[-2]] if len(lives) > 1 else None


def _judge(
    connection: Connection, models: Mapping[str, RegisteredModel], model: str, who: str, two_people: bool
) -> list[Check]:
    found = _one(models, model)
    live = next((other for other in models.values() if other.state is ModelState.LIVE), None)
    if live is None:
        raise RecordError("no model is live yet: start a worker that reads, which enters the configured one")
    proofs: tuple[Check, ...] = ()
    brought = ""
    statement = select(ModelEventRow).where(ModelEventRow.model_id == model).order_by(ModelEventRow.id)
    for row in connection.execute(statement):
        if row.action == ModelAction.ADDED:
            proofs = _event(row).checks
        if row.to_state == ModelState.SHADOW:
            brought = row.who
    other = brought if two_people else None
    return gate(found.card, live.card, proofs=proofs, who=who, other_than=other)


def _spell(connection: Connection, row: Any, until: datetime | None) -> LiveSpell:
    told = (
        select(ModelEventRow)
        .where(
            ModelEventRow.model_id == row.model_id,
            ModelEventRow.id > row.id,
            one_of(ModelEventRow.action, (ModelAction.TAKEN_UP, ModelAction.REFUSED)),
        )
        .order_by(ModelEventRow.id)
        .limit(SPELLS)
    )
    if until is not None:
        told = told.where(ModelEventRow.at < until)
    model = connection.execute(_ALL.where(ModelRow.model_id == row.model_id)).one()
    return LiveSpell(
        model=_model(model),
        since=row.at,
        until=until,
        who=row.who,
        why=row.why,
        told=tuple(_event(event) for event in connection.execute(told)),
    )


def _model(row: Any) -> RegisteredModel:
    return RegisteredModel(
        model_id=row.model_id,
        name=row.name,
        version=row.version,
        bundle=row.bundle,
        state=ModelState(row.state),
        added_at=row.added_at,
        card=card_from_json(row.card),
    )


def _event(row: Any) -> ModelEvent:
    return ModelEvent(
        id=row.id,
        at=row.at,
        model_id=row.model_id,
        who=row.who,
        action=ModelAction(row.action),
        from_state=None if row.from_state is None else ModelState(row.from_state),
        to_state=None if row.to_state is None else ModelState(row.to_state),
        why=row.why,
        checks=tuple(Check(**check) for check in row.checks),
    )
