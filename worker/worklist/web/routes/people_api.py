"""People, keys and the audit trail for programs, under `/api/v1`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from schemas.errors import RecordError
from schemas.person import Person, Role
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import Number, depends
from worker.worklist.web.routes.api import MISSING, Answers
from worker.worklist.web.routes.people import DEEDS, Before, Office, Uid, Words

_LAST: Answers = {409: {"description": "this is the last administrator"}}


def router(desk: Desk) -> APIRouter:
    """`/api/v1/people`, `/api/v1/keys`, `/api/v1/audit`."""
    routes = APIRouter(prefix="/api/v1", tags=["people"])
    administrator, seers = Role.ADMINISTRATOR, (Role.ADMINISTRATOR, Role.AUDITOR)
    office = Office(desk)

    @routes.get("/people")
    def everybody(person: Person = depends(desk, *seers)) -> JSONResponse:
        """Everybody who may sign in, or might."""
        return _json([asdict(account) for account in desk.people.everybody()])

    @routes.post("/people", status_code=201)
    def add(
        request: Request,
        name: Annotated[str, Body()],
        role: Annotated[Role, Body()],
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Add somebody. `link` works once, for three days: whoever has it chooses the password."""
        try:
            added, link = office.add(request, name, role)
        except RecordError as error:
            raise HTTPException(422, str(error)) from error
        return _json({"id": added.id, "name": added.name, "role": role, "link": link}, 201)

    @routes.post("/people/{number}", responses=MISSING | _LAST)
    def change(
        request: Request,
        number: Number,
        role: Annotated[Role | None, Body()] = None,
        disabled: Annotated[bool | None, Body()] = None,
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Another role; shut out (`disabled`), or let in again."""
        try:
            office.change(request, number, role, disabled)
        except RecordError as error:
            raise HTTPException(409, str(error)) from error
        return _json(asdict(office.one(number)))

    @routes.post("/people/{number}/invite", responses=MISSING)
    def invite(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """A new link for somebody who lost the password; the one before is void."""
        _, link = office.invite(request, number)
        return _json({"link": link})

    @routes.get("/keys")
    def keys(person: Person = depends(desk, *seers)) -> JSONResponse:
        """Programs' keys, without the keys themselves."""
        return _json([asdict(token) for token in desk.people.tokens()])

    @routes.post("/keys", status_code=201)
    def add_key(
        request: Request,
        name: Annotated[str, Body()],
        role: Annotated[Role, Body()],
        person: Person = depends(desk, administrator),
        days: Annotated[int, Body(ge=0, le=3650)] = 365,
    ) -> JSONResponse:
        """A key, shown once; 0 days: for ever."""
        try:
            number, key = office.add_key(request, name, role, days)
        except RecordError as error:
            raise HTTPException(422, str(error)) from error
        return _json({"id": number, "key": key}, 201)

    @routes.post("/keys/{number}/revoke", responses=MISSING)
    def revoke(request: Request, number: Number, person: Person = depends(desk, administrator)) -> JSONResponse:
        """The key opens nothing any more."""
        office.revoke(request, number)
        return _json({"revoked": True})

    @routes.get("/audit")
    def audit(
        person: Person = depends(desk, *seers),
        before: Before = None,
        who: Words = "",
        action: Words = "",
        study: Uid = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = DEEDS,
    ) -> JSONResponse:
        """The trail, the latest first; `before` the last number that was given, on from there."""
        found = desk.audit.deeds(limit, before=before, who=who, action=action, study_uid=study)
        return _json([{"number": number, **asdict(deed)} for number, deed in found])

    return routes


def _json(content: Any, code: int = 200) -> JSONResponse:
    return JSONResponse(jsonable_encoder(content), code)
