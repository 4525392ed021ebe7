"""The models: which reads, which may, and what became of each. Administrators change it, auditors see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Form, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.errors import HilumError, RecordError
from schemas.figures import binary_auroc, macro_auroc
from schemas.person import Person, Role
from schemas.registry import MODEL_MOVES, Check, ModelEvent, ModelState, RegisteredModel
from worker.record.side_by_side import SideBySide, compare
from worker.worklist.web import model_card
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import depends
from worker.worklist.web.models_desk import ModelsDesk

EVENTS: Final = 50  # on one page
HEARD: Final = timedelta(minutes=5)  # a process that was silent for longer is not shown
DAYS: Final = (1, 7, 30)  # that a comparison looks back
WORDS: Final = {
    ModelState.LIVE: "reads",
    ModelState.SHADOW: "reads along, unheard",
    ModelState.CANDIDATE: "candidate",
    ModelState.RETIRED: "retired",
}

Why = Annotated[str, Form(max_length=2000)]
Id = Annotated[str, Form(max_length=64)]
At = Annotated[str, Query(max_length=40)]
Before = Annotated[int | None, Query(ge=1, le=1 << 62)]
Days = Annotated[float, Query(gt=0, le=366)]
_SEERS: Final = (Role.ADMINISTRATOR, Role.AUDITOR)
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "no such model"}}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "not as it stands; `error` says why"}}
_WRONG: Final[dict[int | str, dict[str, Any]]] = {422: {"description": "no such moment; `error` says why"}}


def router(desk: Desk) -> APIRouter:
    """`/models…` for people, `/api/v1/models…` for programs."""
    outer = APIRouter()
    if desk.models is not None:
        outer.include_router(_pages(desk, desk.models))
        outer.include_router(_api(desk, desk.models))
    return outer


def _pages(desk: Desk, models: ModelsDesk) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    administrator = Role.ADMINISTRATOR
    registry = models.registry

    def everything(
        request: Request, code: int = 200, *, fault: str = "", at: str = "", before: int | None = None
    ) -> Response:
        known = registry.models()
        order = list(WORDS)
        events = registry.history(EVENTS + 1, before)
        values: dict[str, object] = {
            "models": sorted(known, key=lambda model: order.index(model.state)),
            "live": next((model for model in known if model.state is ModelState.LIVE), None),
            "former": registry.before(),
            "readers": registry.readers(desk.clock() - HEARD),
            "names": {model.model_id: f"{model.name} {model.version}" for model in known},
            "events": events[:EVENTS],
            "earlier": events[EVENTS - 1].id if len(events) > EVENTS else None,
            "offered": _new(models, known),
            "at": at,
            "spell": None,
            "fault": fault,
        }
        if at:
            try:
                values["spell"] = registry.live_at(_moment(at))
            except ValueError:
                values |= {"at": "", "fault": f"{at!r} is no moment: write it as 2026-05-04T03:12"}
                code = 422
        return desk.page(request, "models.html", {**_common(), **values}, code)

    def one(request: Request, model: RegisteredModel, person: Person, code: int = 200, fault: str = "") -> Response:
        live = next((other for other in registry.models() if other.state is ModelState.LIVE), None)
        beside = None if live is None or live.model_id == model.model_id else live
        judged = beside is not None and model.state in (ModelState.SHADOW, ModelState.CANDIDATE)
        values: dict[str, object] = {
            "model": model,
            "live": live,
            "beside": beside,
            "outputs": model_card.outputs(model.card, None if beside is None else beside.card),
            "groups": model_card.groups(model.card),
            "films": model_card.films(model.card),
            "checks": registry.judge(model.model_id, who=person.name, two_people=models.two_people) if judged else [],
            "moves": sorted(MODEL_MOVES[model.state] - {ModelState.LIVE}),
            "spell": models.shadows.spell(model.model_id),
            "events": registry.history(EVENTS, model=model.model_id),
            "names": {},
            "fault": fault,
        }
        return desk.page(request, "model.html", {**_common(), **values}, code)

    def act(request: Request, model: str, person: Person, done: Callable[[], object], words: str, why: str) -> Response:
        try:
            done()
        except RecordError as error:
            return one(request, _found(models, model), person, 409, str(error))
        desk.note(request, words, model=model, why=why)
        return RedirectResponse(f"/models/{model}", 303)

    @routes.get("/models")
    def index(
        request: Request, person: Person = depends(desk, *_SEERS), at: At = "", before: Before = None
    ) -> Response:
        return everything(request, at=at, before=before)

    @routes.post("/models")
    def add(
        request: Request,
        bundle: Annotated[str, Form(max_length=1000)],
        person: Person = depends(desk, administrator),
        why: Why = "",
    ) -> Response:
        try:
            entered = models.enter(bundle, why, person.name)
        except HilumError as error:
            return everything(request, 409, fault=str(error))
        desk.note(request, "registered a candidate", model=entered, bundle=bundle, why=why)
        return RedirectResponse(f"/models/{entered}", 303)

    @routes.post("/models/rollback")
    def roll_back(
        request: Request, instead_of: Id, person: Person = depends(desk, administrator), why: Why = ""
    ) -> Response:
        try:
            former = registry.roll_back(instead_of=instead_of, who=person.name, why=why, now=desk.clock())
        except RecordError as error:
            return everything(request, 409, fault=str(error))
        desk.note(request, "rolled the live model back", model=former.model_id, instead_of=instead_of, why=why)
        return RedirectResponse("/models", 303)

    @routes.get("/models/{model}")
    def show(request: Request, model: str, person: Person = depends(desk, *_SEERS)) -> Response:
        return one(request, _found(models, model), person)

    @routes.post("/models/{model}/promote")
    def promote(
        request: Request, model: str, instead_of: Id, person: Person = depends(desk, administrator), why: Why = ""
    ) -> Response:
        _found(models, model)
        return act(
            request,
            model,
            person,
            lambda: registry.promote(
                model,
                instead_of=instead_of,
                who=person.name,
                why=why,
                now=desk.clock(),
                two_people=models.two_people,
            ),
            "promoted a model",
            why,
        )

    @routes.post("/models/{model}/move")
    def move(
        request: Request,
        model: str,
        to: Annotated[ModelState, Form()],
        person: Person = depends(desk, administrator),
        why: Why = "",
    ) -> Response:
        _found(models, model)
        return act(
            request,
            model,
            person,
            lambda: registry.move(model, to, who=person.name, why=why, now=desk.clock()),
            f"moved a model: {to}",
            why,
        )

    @routes.get("/models/{model}/compare")
    def side_by_side(request: Request, model: str, person: Person = depends(desk, *_SEERS), days: Days = 7) -> Response:
        found = _found(models, model)
        values = {"model": found, "both": _compared(desk, models, found, days), "days": days, "choices": DAYS}
        return desk.page(request, "compare.html", {**_common(), **values})

    return routes


def _api(desk: Desk, models: ModelsDesk) -> APIRouter:
    refused: dict[int | str, dict[str, Any]] = {
        401: {"description": "no session, and no good key"},
        403: {"description": "not for this role, or a write without X-CSRF"},
        503: {"description": "the database does not answer"},
    }
    routes = APIRouter(prefix="/api/v1/models", tags=["models"], responses=refused)
    administrator = Role.ADMINISTRATOR
    registry = models.registry

    def act(request: Request, done: Callable[[], object], words: str, **detail: str) -> JSONResponse:
        try:
            done()
        except RecordError as error:
            raise HTTPException(409, str(error)) from error
        desk.note(request, words, **detail)
        return JSONResponse({"done": True})

    @routes.get("")
    def everything(person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """Every model, and which process reads with which."""
        readers = [asdict(r) | {"since": r.since.isoformat(), "seen_at": r.seen_at.isoformat()} for r in _heard()]
        return JSONResponse({"models": [_row(model) for model in registry.models()], "readers": readers})

    def _heard() -> list[Any]:
        return registry.readers(desk.clock() - HEARD)

    @routes.post("", responses=_CONFLICT)
    def add(
        request: Request,
        bundle: Annotated[str, Body(max_length=1000)],
        person: Person = depends(desk, administrator),
        why: Annotated[str, Body(max_length=2000)] = "",
    ) -> JSONResponse:
        """Enter a bundle of the store, or a folder or archive, as a candidate; it is proven first."""
        try:
            entered = models.enter(bundle, why, person.name)
        except HilumError as error:
            raise HTTPException(409, str(error)) from error
        desk.note(request, "registered a candidate", model=entered, bundle=bundle, why=why)
        return JSONResponse({"model_id": entered})

    @routes.get("/history")
    def history(
        person: Person = depends(desk, *_SEERS),
        limit: Annotated[int, Query(ge=1, le=1000)] = EVENTS,
        before: Before = None,
    ) -> JSONResponse:
        """What became of the models, the latest first; `before`: those with a smaller number."""
        return JSONResponse([_told(event) for event in registry.history(limit, before)])

    @routes.get("/live-at", responses=_MISSING | _WRONG)
    def live_at(at: At, person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """Which model was live at a moment (ISO 8601; UTC unless it says otherwise)."""
        try:
            spell = registry.live_at(_moment(at))
        except ValueError as error:
            raise HTTPException(422, f"{at!r} is no moment: write it as 2026-05-04T03:12Z") from error
        if spell is None:
            raise HTTPException(404, "no model was live then: the registry had none yet")
        return JSONResponse(
            _row(spell.model)
            | {
                "since": spell.since.isoformat(),
                "until": None if spell.until is None else spell.until.isoformat(),
                "who": spell.who,
                "why": spell.why,
                "told": [_told(event) for event in spell.told],
            }
        )

    @routes.post("/rollback", responses=_CONFLICT)
    def roll_back(
        request: Request,
        instead_of: Annotated[str, Body(max_length=64)],
        person: Person = depends(desk, administrator),
        why: Annotated[str, Body(max_length=2000)] = "",
    ) -> JSONResponse:
        """Back to the model that was live before; `instead_of`: the one that is live now."""
        return act(
            request,
            lambda: registry.roll_back(instead_of=instead_of, who=person.name, why=why, now=desk.clock()),
            "rolled the live model back",
            instead_of=instead_of,
            why=why,
        )

    @routes.get("/{model}", responses=_MISSING)
    def one(model: str, person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """One model: its card, and what the promotion gate says of it."""
        found = _found(models, model)
        checks: list[Check] = []
        if found.state is not ModelState.LIVE and registry.wanted()[0] is not None:
            checks = registry.judge(model, who=person.name, two_people=models.two_people)
        card = {
            "architecture": found.card.architecture,
            "thresholds": dict(found.card.thresholds),
            "metrics": dict(found.card.metrics),
            "intended_use": found.card.intended_use,
            "limits": list(found.card.limits),
            "provenance": found.card.provenance,
        }
        return JSONResponse(_row(found) | {"card": card, "checks": [asdict(check) for check in checks]})

    @routes.post("/{model}/promote", responses=_MISSING | _CONFLICT)
    def promote(
        request: Request,
        model: str,
        instead_of: Annotated[str, Body(max_length=64)],
        person: Person = depends(desk, administrator),
        why: Annotated[str, Body(max_length=2000)] = "",
    ) -> JSONResponse:
        """The shadow becomes live, the live one (`instead_of`) retires; every check of the gate must pass."""
        _found(models, model)
        two = models.two_people
        return act(
            request,
            lambda: registry.promote(
                model, instead_of=instead_of, who=person.name, why=why, now=desk.clock(), two_people=two
            ),
            "promoted a model",
            model=model,
            why=why,
        )

    @routes.post("/{model}/move", responses=_MISSING | _CONFLICT)
    def move(
        request: Request,
        model: str,
        to: Annotated[ModelState, Body()],
        person: Person = depends(desk, administrator),
        why: Annotated[str, Body(max_length=2000)] = "",
    ) -> JSONResponse:
        """Into the shadow, back among the candidates, or out of use."""
        _found(models, model)
        return act(
            request,
            lambda: registry.move(model, to, who=person.name, why=why, now=desk.clock()),
            f"moved a model: {to}",
            model=model,
            why=why,
        )

    @routes.get("/{model}/compare", responses=_MISSING)
    def side_by_side(model: str, person: Person = depends(desk, *_SEERS), days: Days = 7) -> JSONResponse:
        """What it said in silence beside what was said aloud."""
        found = _found(models, model)
        return JSONResponse({"model_id": found.model_id} | _compared(desk, models, found, days).to_json())

    return routes


def _common() -> dict[str, object]:
    return {"words": WORDS, "binary": binary_auroc, "macro": macro_auroc, "test_films": model_card.films}


def _found(models: ModelsDesk, model: str) -> RegisteredModel:
    for known in models.registry.models():
        if known.model_id == model:
            return known
    raise HTTPException(404, "no such model is in the registry")


def _new(models: ModelsDesk, known: list[RegisteredModel]) -> list[str]:
    """Bundles of the store that nobody has entered."""
    entered = {model.bundle for model in known}
    return [name for name in models.offered() if name not in entered]


def _compared(desk: Desk, models: ModelsDesk, model: RegisteredModel, days: float) -> SideBySide:
    now = desk.clock()
    return compare(models.shadows.films(model.model_id, now - timedelta(days=days), now + timedelta(seconds=1)))


def _moment(written: str) -> datetime:
    """UTC, unless it says otherwise. Raises `ValueError`."""
    moment = datetime.fromisoformat(written)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(written) from error


def _row(model: RegisteredModel) -> dict[str, Any]:
    figures = {"binary_auroc": binary_auroc(model.card), "macro_auroc": macro_auroc(model.card)}
    return model.to_json() | {name: None if figure is None else figure.to_json() for name, figure in figures.items()}


def _told(event: ModelEvent) -> dict[str, Any]:
    return asdict(event) | {"at": event.at.isoformat(), "checks": [asdict(check) for check in event.checks]}
