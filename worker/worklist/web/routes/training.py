"""Training runs: ask for one, watch it, call it off; and the calendar that asks for them regularly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Form, Query, Request
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.exceptions import HTTPException

from schemas.errors import ConfigurationError, HilumError, RecordError
from schemas.findings import FINDINGS, Label
from schemas.person import Person, Role
from schemas.training_run import NAME, RunState, TrainingRun
from worker.worklist.web.course import course, groups
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import Number, depends
from worker.worklist.web.live import Newsroom

RUNS: Final = 20  # on the page, unless more are asked for
HERE: Final = timedelta(seconds=60)  # a trainer that was heard of since then is there
KNOWN: Final = timedelta(days=1)  # and its presets are remembered for so long
RHYTHMS: Final = (
    ("0 2 * * sun", "each Sunday at 02:00 UTC"),
    ("0 2 1-7 * sun", "the first Sunday of each month at 02:00 UTC"),
    ("0 2 1 1,4,7,10 *", "the first day of each quarter at 02:00 UTC"),
)
# What a run's report may do: be looked at. It is a page of its own, without a script, made on another machine.
SANDBOX: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

Limit = Annotated[int, Query(ge=1, le=1000)]
Text = Annotated[str, Form(max_length=2000)]
_SEERS: Final = (Role.ADMINISTRATOR, Role.AUDITOR)
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "no such run or entry"}}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "not in this state; `error` says why"}}
_WRONG: Final[dict[int | str, dict[str, Any]]] = {422: {"description": "what was asked cannot be; `error` says why"}}


def router(desk: Desk) -> APIRouter:
    """`/training…` for people, `/api/v1/training/…` for programs."""
    outer = APIRouter()
    outer.include_router(_pages(desk))
    outer.include_router(_api(desk))
    return outer


def _token(desk: Desk) -> str:
    """Differs whenever the list or a run may look different."""
    there = desk.training.trainers(desk.clock() - HERE)
    return f"{desk.training.change_token()}-{','.join(sorted(t.name for t in there))}"


def _pages(desk: Desk) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    news = Newsroom(lambda: _token(desk))
    administrator = Role.ADMINISTRATOR

    def page(request: Request, code: int = 200, limit: int = RUNS, **more: object) -> Response:
        now = desk.clock()
        token = _token(desk)
        trainers = desk.training.trainers(now - KNOWN)
        presets: dict[str, str] = {}
        for trainer in reversed(trainers):  # the latest to be heard of is right
            presets |= trainer.presets
        runs = desk.training.list(limit)
        values = {
            "token": token,
            "more": min(1000, 5 * limit) if len(runs) == limit < 1000 else 0,
            "courses": [course(run, now) for run in runs],
            "trainers": [trainer for trainer in trainers if trainer.seen_at >= now - HERE],
            "presets": dict(sorted(presets.items())),
            "data": list(dict.fromkeys(run.data for run in runs)),
            "entries": [(entry, groups(entry.description)) for entry in desk.retrainings.list()],
            "rhythms": RHYTHMS,
            "findings": FINDINGS,
            "fault": "",
            "asked": {"name": "", "data": runs[0].data if runs else "", "preset": "", "cron": "", "group": []},
        }
        return desk.page(request, "training.html", {**values, **more}, code)

    def wrong(request: Request, error: Exception, **asked: object) -> Response:
        return page(request, 422, fault=str(error), asked=asked)

    @routes.get("/training")
    def everything(request: Request, person: Person = depends(desk, *_SEERS), limit: Limit = RUNS) -> Response:
        return page(request, limit=limit)

    @routes.get("/training/events")
    async def events(request: Request, person: Person = depends(desk, *_SEERS)) -> Response:
        return news.answer()

    @routes.post("/training/runs")
    def ask(
        request: Request,
        person: Person = depends(desk, administrator),
        name: Text = "",
        data: Text = "",
        preset: Text = "",
        cron: Text = "",
        group: Annotated[list[str] | None, Form()] = None,
    ) -> Response:
        try:
            number = _ask(desk, request, name or preset, data, preset, _grouped(group or ()))
        except ConfigurationError as error:
            return wrong(request, error, name=name, data=data, preset=preset, cron=cron, group=group or [])
        return RedirectResponse(f"/training/runs/{number}", 303)

    @routes.post("/training/calendar")
    def plan(
        request: Request,
        person: Person = depends(desk, administrator),
        name: Text = "",
        data: Text = "",
        preset: Text = "",
        cron: Text = "",
        group: Annotated[list[str] | None, Form()] = None,
    ) -> Response:
        try:
            _plan(desk, request, name or preset, data, preset, _grouped(group or ()), cron)
        except ConfigurationError as error:
            return wrong(request, error, name=name, data=data, preset=preset, cron=cron, group=group or [])
        return RedirectResponse("/training#calendar", 303)

    @routes.post("/training/calendar/{number}/remove")
    def remove(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        _remove(desk, request, number)
        return RedirectResponse("/training#calendar", 303)

    @routes.get("/training/runs/{number}")
    def one(request: Request, number: Number, person: Person = depends(desk, *_SEERS)) -> Response:
        token = _token(desk)
        run = _found(desk, number)
        values = {
            "token": token,
            "course": course(run, desk.clock()),
            "groups": groups(run.description),
            "has_report": run.state is RunState.DONE and desk.training.report(number) is not None,
            "may_register": run.state is RunState.DONE and desk.register is not None,
            "registered": _registered(desk, run),
        }
        return desk.page(request, "training-run.html", values)

    @routes.get("/training/runs/{number}/report")
    def report(request: Request, number: Number, person: Person = depends(desk, *_SEERS)) -> Response:
        return _report(desk, number)

    @routes.post("/training/runs/{number}/cancel")
    def cancel(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        _cancel(desk, request, number)
        return RedirectResponse(f"/training/runs/{number}", 303)

    @routes.post("/training/runs/{number}/resume")
    def resume(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        _resume(desk, request, number)
        return RedirectResponse(f"/training/runs/{number}", 303)

    @routes.post("/training/runs/{number}/register")
    def register(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        model = _register(desk, request, number, person)
        return RedirectResponse(f"/training/runs/{number}" if desk.models is None else f"/models/{model}", 303)

    return routes


def _api(desk: Desk) -> APIRouter:
    refused: dict[int | str, dict[str, Any]] = {
        401: {"description": "no session, and no good key"},
        403: {"description": "not for this role, or a write without X-CSRF"},
        503: {"description": "the database does not answer"},
    }
    routes = APIRouter(prefix="/api/v1/training", tags=["training"], responses=refused)
    administrator = Role.ADMINISTRATOR

    @routes.get("/runs")
    def runs(person: Person = depends(desk, *_SEERS), limit: Limit = RUNS) -> JSONResponse:
        """The latest first."""
        return JSONResponse([run.to_json() for run in desk.training.list(limit)])

    @routes.post("/runs", responses=_WRONG)
    def ask(
        request: Request,
        data: Annotated[str, Body()],
        person: Person = depends(desk, administrator),
        name: Annotated[str, Body()] = "",
        preset: Annotated[str, Body()] = "",
        description: Annotated[str, Body()] = "",
    ) -> JSONResponse:
        """Ask for a run: `preset`, or `description` (TOML) in full, or both: the latter is laid over the former."""
        try:
            return JSONResponse({"id": _ask(desk, request, name or preset, data, preset, description)})
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error

    @routes.get("/runs/{number}", responses=_MISSING)
    def one(number: Number, person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """One run: its state, progress, curves, the end of its log, its result."""
        return JSONResponse(_found(desk, number).to_json())

    @routes.get("/runs/{number}/report", responses=_MISSING)
    def report(number: Number, person: Person = depends(desk, *_SEERS)) -> HTMLResponse:
        """The page that it left."""
        return _report(desk, number)

    @routes.post("/runs/{number}/cancel", responses=_MISSING | _CONFLICT)
    def cancel(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Call it off: at once where it waits, within seconds where it runs."""
        return JSONResponse({"state": _cancel(desk, request, number).value})

    @routes.post("/runs/{number}/resume", responses=_MISSING | _CONFLICT)
    def resume(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Queue a failed or cancelled run again; it goes on from its last checkpoint."""
        _resume(desk, request, number)
        return JSONResponse({"state": RunState.REQUESTED.value})

    @routes.post("/runs/{number}/register", responses=_MISSING | _CONFLICT)
    def register(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Enter the bundle of a run that is done as a candidate."""
        return JSONResponse({"model_id": _register(desk, request, number, person)})

    @routes.get("/trainers")
    def trainers(person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """Who was heard of in the last minute, and which presets each knows."""
        there = desk.training.trainers(desk.clock() - HERE)
        return JSONResponse(
            [{"name": t.name, "presets": dict(t.presets), "seen_at": t.seen_at.isoformat()} for t in there]
        )

    @routes.get("/calendar")
    def calendar(person: Person = depends(desk, *_SEERS)) -> JSONResponse:
        """What is asked for regularly, the next first."""
        return JSONResponse([entry.to_json() for entry in desk.retrainings.list()])

    @routes.post("/calendar", responses=_WRONG)
    def plan(
        request: Request,
        data: Annotated[str, Body()],
        cron: Annotated[str, Body()],
        person: Person = depends(desk, administrator),
        name: Annotated[str, Body()] = "",
        preset: Annotated[str, Body()] = "",
        description: Annotated[str, Body()] = "",
    ) -> JSONResponse:
        """Ask for a run again and again; `cron`: minute, hour, day, month, weekday (named), by UTC."""
        try:
            return JSONResponse(_plan(desk, request, name or preset, data, preset, description, cron))
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error

    @routes.delete("/calendar/{number}", responses=_MISSING)
    def remove(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Take it off the calendar; its runs stay."""
        _remove(desk, request, number)
        return JSONResponse({"removed": True})

    return routes


def _ask(desk: Desk, request: Request, name: str, data: str, preset: str, description: str) -> int:
    person: Person = request.state.person
    number = desk.training.request(
        name=name, data=data, preset=preset, description=description, requested_by=person.name, now=desk.clock()
    )
    desk.note(request, "asked for a training run", run=number, name=name, preset=preset, data=data)
    return number


def _plan(
    desk: Desk, request: Request, name: str, data: str, preset: str, description: str, cron: str
) -> dict[str, Any]:
    person: Person = request.state.person
    now = desk.clock()
    entry = desk.retrainings.add(
        name=name,
        cron=cron,
        data=data,
        preset=preset,
        description=description,
        made_by=person.name,
        now=now,
        next_at=desk.next_time(cron, now),
    )
    desk.note(request, "put a training run into the calendar", entry=entry.id, name=name, cron=cron, preset=preset)
    return entry.to_json()


def _remove(desk: Desk, request: Request, number: Number) -> None:
    entry = desk.retrainings.remove(number)
    if entry is None:
        raise HTTPException(404, "no such entry of the calendar")
    desk.note(request, "took a training run off the calendar", entry=number, name=entry.name, cron=entry.cron)


def _found(desk: Desk, number: Number) -> TrainingRun:
    run = desk.training.find(number)
    if run is None:
        raise HTTPException(404, "no such training run")
    return run


def _cancel(desk: Desk, request: Request, number: Number) -> RunState:
    _found(desk, number)
    try:
        state = desk.training.ask_to_cancel(number, desk.clock())
    except RecordError as error:
        raise HTTPException(409, str(error)) from error
    desk.note(request, "called a training run off", run=number)
    return state


def _resume(desk: Desk, request: Request, number: Number) -> None:
    _found(desk, number)
    try:
        desk.training.resume(number, desk.clock())
    except RecordError as error:
        raise HTTPException(409, str(error)) from error
    desk.note(request, "resumed a training run", run=number)


def _register(desk: Desk, request: Request, number: Number, person: Person) -> str:
    run = _found(desk, number)
    if desk.register is None or run.state is not RunState.DONE or run.result is None:
        raise HTTPException(409, f"training run {number} is {run.state}: it has no bundle to register")
    try:
        model = desk.register(str(run.result["bundle"]), f"training run {number}", person.name)
    except HilumError as error:
        raise HTTPException(409, str(error)) from error
    desk.note(request, "registered a candidate", run=number, model=model)
    return model


def _registered(desk: Desk, run: TrainingRun) -> str:
    """The state of its model in the registry; empty where it is not there."""
    if desk.models is None or run.result is None:
        return ""
    states = {model.model_id: model.state.value for model in desk.models.registry.models()}
    return states.get(str(run.result.get("model_id", "")), "")


def _report(desk: Desk, number: Number) -> HTMLResponse:
    _found(desk, number)
    html = desk.training.report(number)
    if html is None:
        raise HTTPException(404, "this run left no report in the database")
    return HTMLResponse(html, headers={"Content-Security-Policy": SANDBOX})


def _grouped(names: Sequence[str]) -> str:
    """From the group that was written beside each finding to TOML: those of one name share an output.

    Raises
    ------
    ConfigurationError
        A name that is none, or a group of one.
    """
    members: dict[str, list[Label]] = {}
    for finding, written in zip(FINDINGS, names, strict=False):
        if name := written.strip():
            if not NAME.fullmatch(name):
                raise ConfigurationError(f"group {name[:40]!r}: letters, digits, . _ - and no more than 63 of them")
            members.setdefault(name, []).append(finding)
    for name, found in members.items():
        if len(found) < 2:
            raise ConfigurationError(
                f"group {name!r} has one label alone, {found[0]}: write its name beside another too"
            )
    lines = [f"{json.dumps(name)} = {json.dumps([label.value for label in found])}" for name, found in members.items()]
    return "\n".join(["[model.groups]", *lines, ""]) if lines else ""
