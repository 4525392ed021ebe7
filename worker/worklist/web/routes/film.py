"""The pixels of a film and, in research mode, where on it the evidence for a finding lies."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from schemas.errors import ModelError, NotAnalysable
from schemas.identity import is_uid
from schemas.not_analysed import WORDS
from schemas.person import Person
from worker.worklist.web import film_stream
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import depends

AT_ONCE: Final = 2  # films unpacked at the same time; each holds up to some 200 MB and half a core's second
_NOT_HERE: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "hilum has nothing to show of this film"}}
_BYTES: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"application/octet-stream": {}}}, **_NOT_HERE}

Known = TypeVar("Known")


def router(desk: Desk) -> APIRouter:
    """`/studies/UID/films/UID/pixels`, `…/activation?finding=LABEL`, and both under `/api/v1`."""
    routes = APIRouter()
    turns = asyncio.Semaphore(AT_ONCE)  # not a lock in a thread: who waits here keeps no other page waiting

    @routes.get("/studies/{study_uid}/films/{sop_uid}/pixels", include_in_schema=False)
    @routes.get("/api/v1/studies/{study_uid}/films/{sop_uid}/pixels", response_class=Response, responses=_BYTES)
    async def pixels(request: Request, study_uid: str, sop_uid: str, person: Person = depends(desk)) -> Response:
        """The film as `worker.worklist.web.film_stream` packs it; `X-Film` says in JSON what is in it."""
        packs = "gzip" in request.headers.get("accept-encoding", "")

        def look() -> tuple[str, bytes]:
            film = _known(desk.original(study_uid, sop_uid) if _uids(study_uid, sop_uid) else None)
            desk.note(request, "looked at a film", study_uid=study_uid, film=sop_uid)
            parts = film_stream.body(film)
            return film_stream.description(film), film_stream.gzipped(parts) if packs else b"".join(parts)

        async with turns:
            try:
                description, body = await asyncio.to_thread(look)
            except NotAnalysable as error:
                raise HTTPException(422, f"this film cannot be shown: {WORDS[error.code]}") from error
        headers = {"X-Film": description, "Vary": "Accept-Encoding"}
        if packs:
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type="application/octet-stream", headers=headers)

    if not desk.rules.research:
        return routes

    @routes.get("/studies/{study_uid}/films/{sop_uid}/activation", include_in_schema=False)
    @routes.get("/api/v1/studies/{study_uid}/films/{sop_uid}/activation", responses=_NOT_HERE)
    async def activation(
        request: Request, study_uid: str, sop_uid: str, finding: str, person: Person = depends(desk)
    ) -> JSONResponse:
        """The class activation map of one finding ("binary": of any), row by row over the whole film."""

        def look() -> dict[str, Any]:
            found = _known(desk.activation(study_uid, sop_uid, finding) if _uids(study_uid, sop_uid) else None)
            desk.note(request, "looked at an activation map", study_uid=study_uid, film=sop_uid, finding=found.finding)
            return {"finding": found.finding, "model_id": found.model_id, "values": found.values.tolist()}

        async with turns:
            try:
                return JSONResponse(await asyncio.to_thread(look))
            except ModelError as error:
                raise HTTPException(503, "the model gives no map at this moment") from error

    return routes


def _uids(*texts: str) -> bool:
    return all(is_uid(text, lenient=True) for text in texts)


def _known(found: Known | None) -> Known:
    if found is None:
        raise HTTPException(404, "hilum has nothing to show of this film: its bytes were let go, or it was never here")
    return found
