"""The web application: pages for people, JSON for programs. It only reads the record.

Routes: `/` the worklist, `/studies/UID` one study, `/events` news of changes (server-sent events),
`/api/v1/worklist`, `/api/v1/studies/UID`, `/healthz` (the process lives), `/readyz` (the record answers).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from schemas.decision import Urgency
from schemas.errors import RecordError
from schemas.identity import is_uid
from schemas.lifecycle import JobState, OutboxState
from worker import __version__
from worker.worklist.web import triage, words
from worker.worklist.web.guard import Headers, KnownHost
from worker.worklist.web.live import Newsroom

if TYPE_CHECKING:
    from worker.record.outbox import Outbox
    from worker.record.rejections import Rejections
    from worker.record.worklist import Worklist

HERE: Final = Path(__file__).parent
PAGE: Final = 100  # studies on one page
REJECTIONS: Final = 20  # shown at most
RECENT: Final = timedelta(days=1)  # of rejections

Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def now_utc() -> datetime:
    """The clock, unless another is passed in."""
    return datetime.now(UTC)


def environment() -> Environment:
    """Templates: escaped everywhere, and a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS | {"standing": triage.standing}
    made.globals |= {
        "levels": tuple(reversed(Urgency)),
        "states": words.STATES,
        "deliveries": words.DELIVERIES,
        "consistencies": words.CONSISTENCIES,
        "most_rejections": REJECTIONS,
    }
    return made


def create_app(
    *,
    worklist: Worklist,
    rejections: Rejections,
    outbox: Outbox,
    status: Callable[[], Mapping[str, object]],
    hosts: Collection[str] = (),
    clock: Callable[[], datetime] = now_utc,
) -> FastAPI:
    """The application.

    Parameters
    ----------
    status:
        What this process serves, for the page's head and `/readyz`: `model`, `dicom`, `spool_free_bytes`, …
    hosts:
        Names besides loopback by which browsers may ask for it.
    """
    app = FastAPI(title="hilum", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(KnownHost, hosts=hosts)
    app.add_middleware(Headers)  # the outermost: refusals have the headers too
    app.mount("/static", _Static(directory=HERE / "static"))
    templates = environment()
    news = Newsroom(worklist.change_token)

    def page(name: str, values: Mapping[str, object], code: int = 200) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(values, now=clock()), code)

    def standing(offset: int) -> dict[str, object]:
        # The token first: what changes while the rows are read is told as news once more.
        token = worklist.change_token()
        rows = worklist.rows(PAGE + 1, offset)
        counts = worklist.counts()
        deliveries = outbox.counts().values()
        return {
            "token": token,
            "rows": rows[:PAGE],
            "counts": triage.counts(counts),
            "in_hand": counts.films[JobState.SPOOLED] + counts.films[JobState.READING],
            "failed": counts.films[JobState.FAILED],
            "offset": offset,
            "earlier": max(0, offset - PAGE),
            "later": offset + PAGE if len(rows) > PAGE else None,
            "rejections": [r for r in rejections.recent(REJECTIONS) if clock() - r.last_at < RECENT],
            "waiting": sum(d.get(OutboxState.PENDING, 0) + d.get(OutboxState.SENDING, 0) for d in deliveries),
            "refused": sum(d.get(OutboxState.REFUSED, 0) for d in deliveries),
            "status": status(),
        }

    def story(study_uid: str) -> dict[str, Any]:
        found = worklist.results(study_uid) if is_uid(study_uid, lenient=True) else None
        if found is None:
            raise HTTPException(404, "no such study is known here")
        return triage.story(found)

    @app.get("/")
    def index(offset: Offset = 0) -> HTMLResponse:
        return page("worklist.html", standing(offset))

    @app.get("/events")
    async def events() -> Response:
        if news.full:
            return PlainTextResponse("too many open pages", 503)
        return StreamingResponse(news.stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @app.get("/studies/{study_uid}")
    def study(study_uid: str) -> HTMLResponse:
        token = worklist.change_token()
        return page("study.html", {"token": token, "study": story(study_uid)})

    @app.get("/api/v1/worklist")
    def api_worklist(limit: Limit = PAGE, offset: Offset = 0) -> JSONResponse:
        return JSONResponse(
            {
                "token": worklist.change_token(),
                "counts": triage.counts(worklist.counts()),
                "studies": [triage.row(r) for r in worklist.rows(limit, offset)],
            }
        )

    @app.get("/api/v1/studies/{study_uid}")
    def api_study(study_uid: str) -> JSONResponse:
        return JSONResponse(story(study_uid))

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        worklist.change_token()
        return JSONResponse({"ready": True, **status()})

    @app.exception_handler(RecordError)
    def record_is_away(request: Request, error: Exception) -> Response:
        return fault(request, 503, "the database does not answer")

    @app.exception_handler(HTTPException)
    def not_served(request: Request, error: HTTPException) -> Response:
        return fault(request, error.status_code, error.detail)

    def fault(request: Request, code: int, what: str) -> Response:
        if request.url.path == "/readyz" or request.url.path.startswith("/api/"):
            return JSONResponse({"error": what}, code)
        return page("message.html", {"what": what}, code)

    return app


class _Static(StaticFiles):
    """Style and script: kept by the browser, asked for again each time whether they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
