"""The web application: pages for people, JSON for programs.

Every page and call but `/healthz`, `/readyz` and the door itself needs somebody who is signed in, or a program's key;
`worker.worklist.web.routes` has a module for each kind, and `/api/openapi.json` describes the API.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from schemas.errors import RecordError
from worker import __version__
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import SignInFirst
from worker.worklist.web.guard import Bounded, Headers, KnownHost
from worker.worklist.web.live import Newsroom
from worker.worklist.web.pages import HERE, Static
from worker.worklist.web.routes import api, door, film, models, people, people_api, policy, reading, training, watching


def create_app(desk: Desk) -> FastAPI:
    """The application on what `desk` offers."""
    app = FastAPI(
        title="hilum",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    app.add_middleware(Bounded)
    app.add_middleware(KnownHost, hosts=desk.rules.hosts)
    app.add_middleware(Headers)  # the outermost: refusals have the headers too
    app.mount("/static", Static(directory=HERE / "static"))
    news = Newsroom(desk.worklist.change_token)
    for router in (
        door.router(desk),
        reading.router(desk, news),
        film.router(desk),
        people.router(desk),
        people_api.router(desk),
        policy.router(desk),
        models.router(desk),
        training.router(desk),
        watching.router(desk),
        api.router(desk),
    ):
        app.include_router(router, responses=api.REFUSED)

    @app.exception_handler(RecordError)
    def record_is_away(request: Request, error: Exception) -> Response:
        return fault(request, 503, "the database does not answer")

    @app.exception_handler(HTTPException)
    def not_served(request: Request, error: HTTPException) -> Response:
        return fault(request, error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    def not_understood(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        return fault(request, 422, f"this was not understood: {wrong}"[:500])

    @app.exception_handler(SignInFirst)
    def sign_in_first(request: Request, error: SignInFirst) -> Response:
        if request.url.path.endswith("/events") or request.headers.get("x-csrf") or request.headers.get("x-again"):
            return Response(status_code=401)
        return RedirectResponse(error.where, 303)

    def fault(request: Request, code: int, what: str, headers: object = None) -> Response:
        more = dict(headers) if isinstance(headers, dict) else None
        if request.url.path == "/readyz" or request.url.path.startswith("/api/"):
            return JSONResponse({"error": what}, code, more)
        return desk.page(request, "message.html", {"what": what}, code)

    return app
