"""The API for programs, under `/api/v1`; described at `/api/openapi.json`. Its answers are what the pages show."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Body, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from schemas.findings import Label
from schemas.identity import is_uid
from schemas.person import Person, Role
from schemas.readings import Judgement
from worker.record.readings import UNKNOWN, Turn
from worker.worklist.web import triage
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import depends
from worker.worklist.web.routes.reading import PAGE, wanted

Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Text = Annotated[str, Query(max_length=200)]


class Fault(BaseModel):
    """What every refusal says."""

    error: str


Answers: TypeAlias = dict[int | str, dict[str, Any]]
# By any call.
REFUSED: Final[Answers] = {
    400: {"model": Fault, "description": "no request that can be understood"},
    401: {"model": Fault, "description": "no session, and no good key"},
    403: {"model": Fault, "description": "not for this role, or a write without X-CSRF"},
    413: {"model": Fault, "description": "longer than a request may be"},
    422: {"model": Fault, "description": "a value that cannot be; `error` says which"},
    503: {"model": Fault, "description": "the database does not answer"},
}
MISSING: Final[Answers] = {404: {"model": Fault, "description": "no such study"}}
CONFLICT: Final[Answers] = {409: {"model": Fault, "description": "somebody else was first; `error` says who"}}


def router(desk: Desk) -> APIRouter:
    """`/api/v1/…`, `/api/openapi.json`, `/healthz` (the process lives), `/readyz` (the record answers)."""
    outer = APIRouter()
    routes = APIRouter(prefix="/api/v1")
    readers = (Role.RADIOLOGIST, Role.ADMINISTRATOR)

    @routes.get("/worklist", tags=["reading"])
    def worklist(
        person: Person = depends(desk),
        limit: Limit = PAGE,
        offset: Offset = 0,
        q: Text = "",
        urgency: Text = "",
        modality: Text = "",
        claims: Text = "",
        unread: bool = False,
    ) -> JSONResponse:
        """Open studies in reading order."""
        found = wanted(person, q=q, urgency=urgency, modality=modality, claims=claims, unread=unread)
        overdue = desk.clock() - desk.rules.longest_wait
        return JSONResponse(
            {
                "token": desk.worklist.change_token(),
                "counts": triage.counts(desk.worklist.counts()),
                "studies": [
                    triage.row(r) for r in desk.worklist.rows(limit, offset, overdue_since=overdue, wanted=found)
                ],
            }
        )

    @routes.get("/studies/{study_uid}", tags=["reading"], responses=MISSING)
    def study(request: Request, study_uid: str, person: Person = depends(desk)) -> JSONResponse:
        """One study's story."""
        found = desk.worklist.results(study_uid) if is_uid(study_uid, lenient=True) else None
        if found is None:
            raise HTTPException(404, "no such study is known here")
        desk.looked(request, study_uid)
        return JSONResponse(triage.story(found, research=desk.rules.research))

    def done(request: Request, action: str, study_uid: str, turn: Turn, **detail: Any) -> JSONResponse:
        if not turn.done:
            raise HTTPException(404 if turn == UNKNOWN else 409, turn.words)
        desk.note(request, action, study_uid=study_uid, **detail)
        return JSONResponse({"done": True})

    @routes.post("/studies/{study_uid}/claim", tags=["reading"], responses=MISSING | CONFLICT)
    def claim(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        take_over: Annotated[bool, Body(embed=True)] = False,
    ) -> JSONResponse:
        """Take the study; another's only with `take_over`."""
        turn = desk.readings.claim(study_uid, person.name, desk.clock(), take_over=take_over)
        return done(request, "took over" if take_over else "claimed", study_uid, turn)

    @routes.post("/studies/{study_uid}/release", tags=["reading"], responses=MISSING | CONFLICT)
    def release(request: Request, study_uid: str, person: Person = depends(desk, *readers)) -> JSONResponse:
        """Give a claim up."""
        return done(request, "released", study_uid, desk.readings.release(study_uid, person.name))

    @routes.post("/studies/{study_uid}/read", tags=["reading"], responses=MISSING | CONFLICT)
    def read(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        judgement: Annotated[Judgement | None, Body(embed=True)] = None,
        findings: Annotated[list[Label] | None, Body(embed=True)] = None,
        revision: Annotated[int | None, Body(embed=True, ge=0, le=2**31 - 1)] = None,
    ) -> JSONResponse:
        """It has been read: it leaves the list. `revision` of the flag that was seen: 409 where another came since."""
        turn = desk.readings.read(
            study_uid,
            person.name,
            desk.clock(),
            judgement=judgement,
            findings=tuple(findings or ()),
            revision=revision,
        )
        return done(request, "read", study_uid, turn, **_said(judgement, findings))

    @routes.post("/studies/{study_uid}/judge", tags=["reading"], responses=MISSING)
    def judge(
        request: Request,
        study_uid: str,
        judgement: Annotated[Judgement, Body(embed=True)],
        person: Person = depends(desk, *readers),
        findings: Annotated[list[Label] | None, Body(embed=True)] = None,
    ) -> JSONResponse:
        """A word on the flag alone, also later; it takes the place of the one before."""
        turn = desk.readings.judge(study_uid, person.name, judgement, tuple(findings or ()), desk.clock())
        return done(request, "judged", study_uid, turn, **_said(judgement, findings))

    @routes.post("/studies/{study_uid}/undo", tags=["reading"], responses=MISSING | CONFLICT)
    def undo(request: Request, study_uid: str, person: Person = depends(desk, *readers)) -> JSONResponse:
        """It was not read after all."""
        return done(request, "undone", study_uid, desk.readings.undo(study_uid, person.name, desk.clock()))

    @routes.get("/feedback", tags=["training"])
    def feedback(person: Person = depends(desk, Role.ADMINISTRATOR, Role.AUDITOR)) -> JSONResponse:
        """What readers said of flags: labels for retraining."""
        said = desk.readings.feedback()
        return JSONResponse(
            [
                {
                    "study_uid": f.study_uid,
                    "reader": f.reader,
                    "judgement": f.judgement.value,
                    "findings": [finding.value for finding in f.findings],
                    "at": f.at.isoformat(),
                }
                for f in said
            ]
        )

    @outer.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @outer.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        desk.worklist.change_token()
        return JSONResponse({"ready": True})

    @outer.get("/api/openapi.json", include_in_schema=False)
    def openapi(request: Request, person: Person = depends(desk)) -> JSONResponse:
        described = get_openapi(title="hilum", version=request.app.version, routes=request.app.routes)
        key = {"type": "http", "scheme": "bearer", "description": "a key of the people page, or `hilum people key`"}
        described.setdefault("components", {})["securitySchemes"] = {"key": key}
        described["security"] = [{"key": []}]
        return JSONResponse(described)

    outer.include_router(routes)
    return outer


def _said(judgement: Judgement | None, findings: list[Label] | None) -> dict[str, Any]:
    """For the audit trail."""
    if judgement is None:
        return {}
    return {"judgement": judgement.value, "findings": [finding.value for finding in findings or ()]}
