"""The radiologist's pages: the reading list, a study, and what is done with it from the keyboard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.decision import Urgency
from schemas.findings import FINDINGS, Label
from schemas.identity import is_uid
from schemas.lifecycle import JobState, OutboxState
from schemas.person import Person, Role
from schemas.readings import Judgement
from worker.record.readings import Turn
from worker.record.worklist import Filter
from worker.worklist.web import triage
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import depends, local
from worker.worklist.web.live import Newsroom
from worker.worklist.web.pages import REJECTIONS

PAGE: Final = 100  # studies on one page
RECENT: Final = timedelta(days=1)  # of rejections
_MOST_VIEWS: Final = 20  # that somebody keeps
_LONGEST: Final = 200  # characters of a search

Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Text = Annotated[str, Query(max_length=_LONGEST)]


def wanted(
    person: Person, *, q: str = "", urgency: str = "", modality: str = "", claims: str = "", unread: bool = False
) -> Filter:
    """The filter that a page's query asks for; what it does not know lets everything through."""
    return Filter(
        text=q,
        urgency=Urgency[urgency] if urgency in Urgency.__members__ else None,
        modality=modality,
        reader=person.name if claims == "mine" else "",
        free=claims == "free",
        not_analysed=unread,
    )


def router(desk: Desk, news: Newsroom) -> APIRouter:
    """`/`, `/events`, `/studies/UID` and what is done there, `/second-look`, `/views`."""
    routes = APIRouter(include_in_schema=False)
    readers = (Role.RADIOLOGIST, Role.ADMINISTRATOR)

    def standing(person: Person, offset: int, query: Mapping[str, Any]) -> dict[str, object]:
        # The token first: what changes while the rows are read is told as news once more.
        token = desk.worklist.change_token()
        now = desk.clock()
        rows = desk.worklist.rows(
            PAGE + 1, offset, overdue_since=now - desk.rules.longest_wait, wanted=wanted(person, **query)
        )
        counts = desk.worklist.counts()
        deliveries = desk.outbox.counts().values()
        status = desk.status()
        return {
            "token": token,
            "rows": rows[:PAGE],
            "counts": triage.counts(counts),
            "in_hand": counts.films[JobState.SPOOLED] + counts.films[JobState.READING],
            "failed": counts.films[JobState.FAILED],
            "offset": offset,
            "earlier": max(0, offset - PAGE),
            "later": offset + PAGE if len(rows) > PAGE else None,
            "rejections": [r for r in desk.rejections.recent(REJECTIONS) if now - r.last_at < RECENT],
            "waiting": sum(d.get(OutboxState.PENDING, 0) + d.get(OutboxState.SENDING, 0) for d in deliveries),
            "refused": sum(d.get(OutboxState.REFUSED, 0) for d in deliveries),
            "status": status,
            "notices": desk.notices(status),
            "query": query,
            "kept_query": urlencode({k: v for k, v in query.items() if v}),
            "filtered": any(query.values()),
            "views": desk.people.view(person.id).get("views", {}),
            "unopened_since": now - desk.rules.unopened,
        }

    def story(study_uid: str) -> dict[str, Any]:
        found = desk.worklist.results(study_uid) if is_uid(study_uid, lenient=True) else None
        if found is None:
            raise HTTPException(404, "no such study is known here")
        return triage.story(found, research=desk.rules.research)

    @routes.get("/")
    def index(
        request: Request,
        person: Person = depends(desk),
        offset: Offset = 0,
        q: Text = "",
        urgency: Text = "",
        modality: Text = "",
        claims: Text = "",
        unread: bool = False,
    ) -> Response:
        query = {"q": q, "urgency": urgency, "modality": modality, "claims": claims, "unread": unread}
        return desk.page(request, "worklist.html", standing(person, offset, query))

    @routes.get("/events")
    async def events(request: Request, person: Person = depends(desk)) -> Response:
        return news.answer()

    @routes.get("/studies/{study_uid}")
    def study(request: Request, study_uid: str, person: Person = depends(desk)) -> Response:
        token = desk.worklist.change_token()
        found = story(study_uid)
        desk.looked(request, study_uid)
        if person.role is not Role.AUDITOR:
            desk.readings.opened(study_uid, desk.clock())
        return desk.page(request, "study.html", {"token": token, "study": found, "viewer": viewer(found)})

    @routes.get("/studies/{study_uid}/disagree")
    def disagree(request: Request, study_uid: str, person: Person = depends(desk, *readers)) -> Response:
        # On a page of its own: in triage mode a study shows no list of labels.
        desk.looked(request, study_uid)
        return desk.page(request, "disagree.html", {"study": story(study_uid), "findings": FINDINGS})

    def viewer(found: Mapping[str, Any]) -> str:
        """The link into the hospital's viewer; empty where there is none."""
        if not desk.rules.viewer_url:
            return ""
        context = found["context"]
        values = {key: quote(str(context[key]), safe="") for key in ("patient_id", "accession_number")}
        return desk.rules.viewer_url.format(study_uid=found["study_uid"], **values)

    def done(request: Request, action: str, study_uid: str, turn: Turn, where: str, **detail: Any) -> Response:
        """To a script 204, or 409 with words; to a form the page where it was, or the words."""
        if turn.done:
            desk.note(request, action, study_uid=study_uid, **detail)
        if request.headers.get("x-csrf"):
            return Response(status_code=204) if turn.done else PlainTextResponse(turn.words, 409)
        if not turn.done:
            raise HTTPException(409, turn.words)
        return RedirectResponse(local(where), 303)

    @routes.post("/studies/{study_uid}/claim")
    def claim(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        take_over: Annotated[bool, Form()] = False,
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        turn = desk.readings.claim(study_uid, person.name, desk.clock(), take_over=take_over)
        return done(request, "took over" if take_over else "claimed", study_uid, turn, next)

    @routes.post("/studies/{study_uid}/release")
    def release(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        return done(request, "released", study_uid, desk.readings.release(study_uid, person.name), next)

    @routes.post("/studies/{study_uid}/read")
    def read(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        judgement: Annotated[str, Form()] = "",
        finding: Annotated[list[str] | None, Form()] = None,
        revision: Annotated[int | None, Form(ge=0, le=2**31 - 1)] = None,
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        said, seen = _said(judgement, finding)
        turn = desk.readings.read(
            study_uid, person.name, desk.clock(), judgement=said, findings=seen, revision=revision
        )
        detail = {} if said is None else {"judgement": said.value, "findings": [f.value for f in seen]}
        return done(request, "read", study_uid, turn, next, **detail)

    @routes.post("/studies/{study_uid}/judge")
    def judge(
        request: Request,
        study_uid: str,
        judgement: Annotated[str, Form()],
        person: Person = depends(desk, *readers),
        finding: Annotated[list[str] | None, Form()] = None,
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        said, seen = _said(judgement, finding)
        if said is None:
            raise HTTPException(422, "say whether you agree or disagree")
        turn = desk.readings.judge(study_uid, person.name, said, seen, desk.clock())
        return done(request, "judged", study_uid, turn, next, judgement=said.value, findings=[f.value for f in seen])

    @routes.post("/studies/{study_uid}/undo")
    def undo(
        request: Request,
        study_uid: str,
        person: Person = depends(desk, *readers),
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        return done(request, "undone", study_uid, desk.readings.undo(study_uid, person.name, desk.clock()), next)

    @routes.get("/second-look")
    def second_look(request: Request, person: Person = depends(desk)) -> Response:
        values = {"token": desk.worklist.change_token(), "rows": desk.second_looks.rows(PAGE)}
        return desk.page(request, "second-look.html", values)

    @routes.post("/second-look/{study_uid}/done")
    def seen_again(request: Request, study_uid: str, person: Person = depends(desk, *readers)) -> Response:
        if not desk.second_looks.done(study_uid, desk.clock()):
            raise HTTPException(404, "this study is not on the second-look list")
        desk.note(request, "had the second look", study_uid=study_uid)
        return RedirectResponse("/second-look", 303)

    @routes.post("/views")
    def keep_view(
        request: Request,
        name: Annotated[str, Form(max_length=40)],
        query: Annotated[str, Form(max_length=600)] = "",
        person: Person = depends(desk),
        forget: Annotated[bool, Form()] = False,
    ) -> Response:
        view = desk.people.view(person.id)
        views = dict(view.get("views", {}))
        name = " ".join(name.split())
        views.pop(name, None)
        if name and not forget:
            views[name] = query
        desk.people.set_view(person.id, {**view, "views": dict(list(views.items())[-_MOST_VIEWS:])})
        return RedirectResponse("/" if forget or not query else f"/?{query}", 303)

    return routes


def _said(judgement: str, findings: list[str] | None) -> tuple[Judgement | None, list[Label]]:
    try:
        return (Judgement(judgement) if judgement else None), [Label(finding) for finding in findings or ()]
    except ValueError as error:
        raise HTTPException(422, "neither agree nor disagree, or no finding that is known here") from error
