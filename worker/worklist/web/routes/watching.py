"""Watching: how hilum does, by page, by API and as metrics; flags paused and resumed; destinations tested and mended.

Everybody who is signed in may look; administrators act.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from ipaddress import ip_address
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Form, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.errors import HilumError
from schemas.lifecycle import OutboxState
from schemas.person import Person, Role
from schemas.watching import MEASURE_WORDS, Measure
from worker import __version__
from worker.record.shift import wilson
from worker.record.times import Spread
from worker.watch.metrics import CONTENT_TYPE, Gauge, gauge, render
from worker.worklist.web import plots
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import Number, depends, digest
from worker.worklist.web.pages import REJECTIONS
from worker.worklist.web.watch_desk import PERCENTILES, WINDOWS, Answer, View, WatchDesk

_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "no session, and no good key"},
    403: {"description": "not for this role, or a write without X-CSRF"},
    503: {"description": "the database does not answer"},
}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "it is so already; `error` says"}}
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "no such destination"}}

Why = Annotated[str, Form(max_length=500)]


def router(desk: Desk) -> APIRouter:
    """`/watching`, `/api/v1/watching/…`, `/metrics`."""
    routes = APIRouter()
    pages = APIRouter(include_in_schema=False)
    api = APIRouter(prefix="/api/v1/watching", tags=["watching"], responses=_REFUSED)
    administrator = Role.ADMINISTRATOR

    def here() -> WatchDesk:
        if desk.watch is None:
            raise HTTPException(404, "this process does not watch")
        return desk.watch

    def pause(request: Request, person: Person, why: str) -> bool:
        why = " ".join(why.split())
        if not why:
            raise HTTPException(422, "say why: whoever reads the list is told")
        if not here().pauses.pause(person.name, why, desk.clock()):
            return False
        desk.note(request, "paused flags", why=why)
        return True

    def resume(request: Request, person: Person, because: str) -> bool:
        because = " ".join(because.split())
        if not here().pauses.resume(person.name, because, desk.clock()):
            return False
        desk.note(request, "resumed flags", because=because)
        return True

    def test(request: Request, name: str) -> Answer:
        watch = here()
        if name not in watch.configured or watch.test is None:
            raise HTTPException(404, "no destination of this name is configured")
        try:
            found = Answer(at=desk.clock(), is_there=True, words=watch.test(name))
        except HilumError as error:
            found = Answer(at=desk.clock(), is_there=False, words=str(error))
        watch.tests[name] = found
        desk.note(request, "tested a destination", destination=name, is_there=found.is_there)
        return found

    def replay(request: Request, name: str) -> int:
        if name not in here().configured:
            raise HTTPException(404, "no destination of this name is configured: nobody would deliver to it")
        flags = desk.outbox.replay(name, states=[OutboxState.REFUSED])
        if flags:
            desk.note(request, "replayed", destination=name, flags=flags)
        return flags

    def learn_anew(request: Request, person: Person, number: int) -> None:
        if not here().drift.set_aside(number, person.name, desk.clock()):
            raise HTTPException(404, "no such baseline, or it is set aside already")
        here().forget()
        desk.note(request, "set a scanner's baseline aside", baseline=number)

    @pages.get("/watching")
    def watching(request: Request, person: Person = depends(desk)) -> Response:
        token = desk.worklist.change_token()
        view, status = here().view(desk.clock()), desk.status()
        values = {
            "token": token,
            "view": view,
            "status": status,
            "notices": desk.notices(status),
            "rejections": desk.rejections.recent(REJECTIONS),
            "may": person.role is administrator,
            "windows": tuple(WINDOWS),
            "percentiles": PERCENTILES,
            "times": plots.times_plot(*_by_hour(view)),
            "films": plots.films_plot(view.figures.hours),
            "size": (plots.WIDTH, plots.HEIGHT),
            "keep": here().keep,
            "watermark": here().watermark,
            "rules_of_drift": here().rules,
            "measures": MEASURE_WORDS,
            "Measure": Measure,
            "seconds": plots.seconds,
            "wilson": wilson,
            "can_test": here().test is not None,
        }
        return desk.page(request, "watching.html", values)

    @pages.post("/watching/pause")
    def pause_flags(request: Request, why: Why = "", person: Person = depends(desk, administrator)) -> Response:
        pause(request, person, why)
        return RedirectResponse("/watching", 303)

    @pages.post("/watching/resume")
    def resume_flags(request: Request, why: Why = "", person: Person = depends(desk, administrator)) -> Response:
        resume(request, person, why)
        return RedirectResponse("/watching", 303)

    @pages.post("/watching/destinations/{name}/test")
    def test_destination(request: Request, name: str, person: Person = depends(desk, administrator)) -> Response:
        test(request, name)
        return RedirectResponse("/watching#destinations", 303)

    @pages.post("/watching/destinations/{name}/replay")
    def replay_destination(request: Request, name: str, person: Person = depends(desk, administrator)) -> Response:
        replay(request, name)
        return RedirectResponse("/watching#destinations", 303)

    @pages.post("/watching/baselines/{number}/set-aside")
    def set_aside(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        learn_anew(request, person, number)
        return RedirectResponse("/watching#drift", 303)

    @api.get("")
    def everything(person: Person = depends(desk)) -> JSONResponse:
        """What the page shows. Times are in seconds."""
        view, status = here().view(desk.clock()), desk.status()
        return JSONResponse({**_plain(view), "notices": desk.notices(status), "status": _plain(status)})

    @api.post("/pause", responses=_CONFLICT)
    def pause_by_api(
        request: Request,
        why: Annotated[str, Body(embed=True, max_length=500)],
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Hold flags back: films are received, read and listed as ever, and no destination is told of a new flag."""
        if not pause(request, person, why):
            raise HTTPException(409, "flags are paused already")
        return JSONResponse({"paused": True})

    @api.post("/resume", responses=_CONFLICT)
    def resume_by_api(
        request: Request,
        why: Annotated[str, Body(embed=True, max_length=500)] = "",
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Let flags go: what still holds is told, the most urgent first."""
        if not resume(request, person, why):
            raise HTTPException(409, "flags are not paused")
        return JSONResponse({"paused": False})

    @api.post("/destinations/{name}/test", responses=_MISSING)
    def test_by_api(request: Request, name: str, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Ask a destination whether it is there; no flag is sent to it."""
        return JSONResponse(_plain(test(request, name)))

    @api.post("/destinations/{name}/replay", responses=_MISSING)
    def replay_by_api(request: Request, name: str, person: Person = depends(desk, administrator)) -> JSONResponse:
        """Send again what it refused."""
        return JSONResponse({"flags": replay(request, name)})

    @api.post("/baselines/{number}/set-aside", responses={404: {"description": "no such baseline"}})
    def set_aside_by_api(
        request: Request, number: Number, person: Person = depends(desk, administrator)
    ) -> JSONResponse:
        """A scanner's films are as they should be: compare with those from now on."""
        learn_anew(request, person, number)
        return JSONResponse({"set_aside": True})

    @pages.get("/metrics")
    def metrics(request: Request) -> Response:
        """For Prometheus: to whoever asks from this machine, or with a key."""
        if not _is_from_here(request):
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or desk.people.by_token(digest(key.strip()), desk.clock()) is None:
                raise HTTPException(401, "send a key as Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
        found = _gauges(here().view(desk.clock()), desk.status())
        return PlainTextResponse(render(found), media_type=CONTENT_TYPE)

    routes.include_router(pages)
    routes.include_router(api)
    return routes


def _is_from_here(request: Request) -> bool:
    """Whether it comes from this machine and from nobody behind a proxy."""
    if request.client is None or any(name in request.headers for name in ("forwarded", "x-forwarded-for")):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _by_hour(view: View) -> tuple[list[datetime], list[tuple[str, list[float | None]]]]:
    begins = [at for at, _ in view.figures.by_hour]
    spreads = [spread for _, spread in view.figures.by_hour]
    return begins, [(f"p{p}", [spread.percentile(p) for spread in spreads]) for p in (50, 95)]


def _plain(value: Any) -> Any:
    """As JSON has it: moments in ISO 8601, spans in seconds, urgencies by name."""
    plain = value
    if isinstance(value, Spread):
        plain = {"flags": value.count, **{f"p{p}": value.percentile(p) for p in PERCENTILES}}
    elif is_dataclass(value):
        plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    elif isinstance(value, Mapping):
        plain = {str(key): _plain(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        plain = [_plain(each) for each in value]
    elif isinstance(value, datetime):
        plain = value.isoformat()
    elif isinstance(value, timedelta):
        plain = value.total_seconds()
    elif isinstance(value, Enum):
        plain = value.name if isinstance(value, IntEnum) else value.value
    return plain


def _gauges(view: View, status: Mapping[str, Any]) -> list[Gauge]:
    figures, queue = view.figures, view.queue
    age = 0.0 if queue.since is None else (figures.at - queue.since).total_seconds()
    model = status.get("model") or {}
    return [
        Gauge(
            "hilum_info",
            "The version, and the model that this process reads with.",
            (({"version": __version__, "model": str(model.get("id", ""))}, 1),),
        ),
        gauge("hilum_flags_paused", "1 while flags are held back.", int(view.pause is not None)),
        gauge("hilum_films_waiting", "Films that nobody has taken in hand.", queue.waiting),
        gauge("hilum_films_in_hand", "Films that are being read.", queue.in_hand),
        gauge("hilum_films_failed", "Films that were set aside for a person.", queue.failed),
        gauge("hilum_oldest_film_seconds", "How long the oldest film waits or is in hand.", max(0.0, age)),
        Gauge(
            "hilum_films",
            "Films that came to an end in the last hour, day and week.",
            tuple(
                ({"result": result, "window": name}, getattr(hour, key))
                for name, hour in figures.windows.items()
                for result, key in (("read", "read"), ("not-analysed", "not_analysed"), ("failed", "failed"))
            ),
        ),
        Gauge(
            "hilum_studies_raised",
            "Studies that were raised in the last hour, day and week.",
            tuple(({"window": name}, hour.flagged) for name, hour in figures.windows.items()),
        ),
        Gauge(
            "hilum_time_to_flag_seconds",
            "From the last byte of the film until the destination had the flag.",
            tuple(
                ({"destination": found.destination, "window": name, "quantile": f"{p / 100:g}"}, value)
                for found in figures.times
                for name, spread in found.windows.items()
                for p in PERCENTILES
                if (value := spread.percentile(p)) is not None
            ),
        ),
        Gauge(
            "hilum_deliveries_waiting",
            "Flags on their way.",
            tuple(({"destination": place.name}, place.waiting) for place in view.places),
        ),
        Gauge(
            "hilum_deliveries_refused",
            "Flags that were refused.",
            tuple(({"destination": place.name}, place.refused) for place in view.places),
        ),
        Gauge(
            "hilum_destination_up",
            "1 when what was sent last went through.",
            tuple(
                ({"destination": place.name}, int(place.mark == "up"))
                for place in view.places
                if place.mark != "unknown"
            ),
        ),
        gauge("hilum_drift_alarms", "Alarms on scanners that stand.", sum(a.ended_at is None for a in view.alarms)),
        gauge("hilum_associations", "Open associations of this process.", status.get("associations")),
        gauge("hilum_spool_free_bytes", "Free disk where films are kept.", status.get("spool_free_bytes")),
        gauge("hilum_spool_films", "Films that are kept.", figures.kept.films),
        gauge("hilum_spool_bytes", "Their size.", figures.kept.size),
    ]
