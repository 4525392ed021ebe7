"""The policy: edited with a live preview, proposed, and enacted after its dry run. By page and by API.

Everybody who is signed in sees it; administrators propose and enact. A preview changes nothing, so that it is a GET.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Body, Depends, Form, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError, ModelError
from schemas.person import Person, Role
from schemas.policy import (
    CONFIGURED,
    OUTPUTS,
    PolicyVersion,
    budget_of,
    differences,
    made_of,
    policy_from_json,
    policy_to_json,
    rule_of,
    spoken,
    threshold_of,
)
from schemas.preview import Preview, Raised
from worker.record.policies import PolicyOvertaken, PolicyUnknown
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import Number, depends
from worker.worklist.web.policy_desk import PolicyDesk

VERSIONS: Final = 50  # listed
SHOWN: Final = 20  # studies that change, on the page
DAYS: Final = 7.0

Days = Annotated[float, Query(gt=0, le=31)]
Note = Annotated[str, Form(max_length=2000)]
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "no session, and no good key"},
    403: {"description": "not for this role, or a write without X-CSRF"},
    503: {"description": "the database does not answer"},
}
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "no such policy"}}
_WRONG: Final[dict[int | str, dict[str, Any]]] = {422: {"description": "not a policy; `error` names what is wrong"}}
_LATE: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "another policy came into force; `error` says"}}


async def _fields(request: Request) -> dict[str, str]:
    """A form's texts; its names are those of the findings, so that no signature lists them."""
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


Fields = Annotated[dict[str, str], Depends(_fields)]


def router(desk: Desk) -> APIRouter:
    """`/policy`, `/policy/NUMBER`, `/api/v1/policies/…`."""
    routes = APIRouter()
    pages = APIRouter(include_in_schema=False)
    api = APIRouter(prefix="/api/v1/policies", tags=["policy"], responses=_REFUSED)
    administrator = Role.ADMINISTRATOR

    def here() -> PolicyDesk:
        if desk.policy is None:
            raise HTTPException(404, "policies are not kept by this process")
        return desk.policy

    def body(number: Number) -> Policy:
        try:
            return here().body(number)
        except PolicyUnknown as error:
            raise HTTPException(404, str(error)) from error

    def version(number: Number) -> PolicyVersion | None:
        """None: the configuration's."""
        body(number)
        return None if number == CONFIGURED else here().policies.show(number)

    @contextmanager
    def understood() -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error
        except ModelError as error:
            raise HTTPException(503, f"the model in service cannot be asked: {error}") from error
        except PolicyOvertaken as error:
            raise HTTPException(409, str(error)) from error

    def proposed(request: Request, person: Person, policy: Policy, note: str) -> PolicyVersion:
        with understood():
            here().check(policy)
            made = here().policies.propose(policy, made_by=person.name, note=note, now=desk.clock())
        desk.note(request, "proposed a policy", policy=made.number)
        return made

    def enacted(request: Request, person: Person, number: Number, because: str, over: int) -> PolicyVersion:
        policy, now = body(number), desk.clock()
        with understood():
            here().check(policy)
            made = here().policies.enact(number, enacted_by=person.name, because=because, over=over, now=now)
        desk.note(request, "enacted a policy", policy=number, before=over)
        return made

    def previewed(policy: Policy, days: float, *, fresh: bool = False) -> Preview:
        with understood():
            return here().previews().preview(policy, here().in_force(desk.clock())[1], days, fresh=fresh)

    def rows(policy: Policy) -> list[dict[str, Any]]:
        """The table of findings; "any finding" comes last."""
        with understood():
            points = here().check(policy)
        return [
            {
                "output": output,
                "name": spoken(output),
                "urgency": rule_of(policy, output).urgency.name,
                "threshold": rule_of(policy, output).threshold,
                "point": points[output],
            }
            for output in OUTPUTS
        ]

    # ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @pages.get("/policy")
    def edit(
        request: Request,
        person: Person = depends(desk),
        days: Days = DAYS,
        start: Annotated[int | None, Query(ge=0, alias="from")] = None,
    ) -> Response:
        number, in_force = here().in_force(desk.clock())
        edited = in_force if start is None else body(start)
        values = {
            "in_force": number,
            "version": version(number),
            "start": start,
            "rows": rows(edited),
            "policy": edited,
            "before": policy_to_json(in_force),
            "versions": here().policies.list(VERSIONS),
            "days": days,
            "may": person.role is administrator,
        }
        return desk.page(request, "policy.html", values)

    @pages.post("/policy")
    def propose(request: Request, fields: Fields, person: Person = depends(desk, administrator)) -> Response:
        made = proposed(request, person, _edited(fields), fields.get("note", ""))
        days = fields.get("days", "")
        return RedirectResponse(f"/policy/{made.number}" + (f"?days={days}" if days.isdecimal() else ""), 303)

    @pages.get("/policy/{number}")
    def show(request: Request, number: Number, person: Person = depends(desk), days: Days = DAYS) -> Response:
        found, policy = version(number), body(number)
        in_force, now = here().in_force(desk.clock())
        is_open = found is not None and found.effective_at is None
        seen = previewed(policy, days, fresh=True) if is_open else None
        followed = found.followed if found is not None and found.followed is not None else CONFIGURED
        against = in_force if is_open else followed
        values = {
            "number": number,
            "version": found,
            "in_force": in_force,
            "against": against,
            "changes": differences(now if is_open else body(against), policy) if number != CONFIGURED else (),
            "rows": rows(policy),
            "policy": policy,
            "preview": seen,
            "changed": () if seen is None else seen.changed[:SHOWN],
            "shares": () if seen is None else [(spoken(o), s) for o, s in seen.shares.items() if s.before or s.after],
            "days": days,
            "may": person.role is administrator,
        }
        return desk.page(request, "policy-version.html", values)

    @pages.post("/policy/{number}/enact")
    def enact(
        request: Request,
        number: Number,
        because: Note,
        over: Annotated[int, Form(ge=0)],
        person: Person = depends(desk, administrator),
    ) -> Response:
        enacted(request, person, number, because, over)
        return RedirectResponse(f"/policy/{number}", 303)

    # ── API ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    @api.get("")
    def api_list(
        person: Person = depends(desk), limit: Annotated[int, Query(ge=1, le=1000)] = VERSIONS
    ) -> JSONResponse:
        """Every policy but the configuration's, the latest first, and the number in force."""
        number, _ = here().in_force(desk.clock())
        return JSONResponse({"in_force": number, "policies": [v.to_json() for v in here().policies.list(limit)]})

    @api.get("/current")
    def api_current(person: Person = depends(desk), at: datetime | None = None) -> JSONResponse:
        """The one in force now, or `at` a moment; number 0 is the configuration's, as it stands today."""
        moment = desk.clock() if at is None else at if at.tzinfo else at.replace(tzinfo=UTC)
        number, policy = here().in_force(moment)
        found = version(number)
        return JSONResponse(_configured(policy) if found is None else found.to_json())

    @api.get("/preview", responses=_WRONG)
    def api_preview(
        person: Person = depends(desk),
        policy: Annotated[str, Query(max_length=10_000, description="JSON, as `policy` of a policy")] = "",
        days: Days = DAYS,
    ) -> JSONResponse:
        """What past studies would have been under a policy, beside the one in force; changes nothing."""
        if policy and person.role is Role.RADIOLOGIST:
            # By thresholds near zero it would tell of each film what triage mode does not show.
            raise HTTPException(403, "policies are edited by administrators")
        edited = _policy(_loaded(policy)) if policy else here().in_force(desk.clock())[1]
        return JSONResponse(_preview(previewed(edited, days)))

    @api.get("/curves", responses=_WRONG)
    def api_curves(person: Person = depends(desk), days: Days = DAYS) -> JSONResponse:
        """Flags an hour, sensitivity, specificity and predictive value of each finding by threshold."""
        with understood():
            curves = here().previews().curves(days)
        return JSONResponse({output: asdict(curve) for output, curve in curves.items()})

    @api.get("/{number}", responses=_UNKNOWN)
    def api_show(number: Number, person: Person = depends(desk)) -> JSONResponse:
        """One of them."""
        found = version(number)
        return JSONResponse(_configured(here().configured) if found is None else found.to_json())

    @api.post("", status_code=201, responses=_WRONG)
    def api_propose(
        request: Request,
        policy: Annotated[dict[str, Any], Body()],
        note: Annotated[str, Body(max_length=2000)] = "",
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Keep a policy under the next number; it changes nothing until it is enacted."""
        return JSONResponse(proposed(request, person, _policy(policy), note).to_json(), 201)

    @api.post("/{number}/enact", responses=_UNKNOWN | _WRONG | _LATE)
    def api_enact(
        request: Request,
        number: Number,
        because: Annotated[str, Body(max_length=2000)],
        over: Annotated[int, Body(ge=0, description="the number that is in force, as you saw it")],
        person: Person = depends(desk, administrator),
    ) -> JSONResponse:
        """Put a proposed policy into force; readers follow within seconds."""
        return JSONResponse(enacted(request, person, number, because, over).to_json())

    routes.include_router(pages)
    routes.include_router(api)
    return routes


def _edited(fields: Mapping[str, str]) -> Policy:
    """A policy out of the page's form."""
    rules: dict[str, Rule] = {}
    try:
        for output in OUTPUTS:
            urgency = fields.get(f"urgency-{output}", Urgency.ROUTINE.name)
            if urgency not in Urgency.__members__:
                raise ConfigurationError(f"policy: {output}: {urgency[:80]!r} is no urgency")
            written = fields.get(f"threshold-{output}", "").strip()
            threshold = threshold_of(output, written or "card")
            rules[output] = Rule(urgency=Urgency[urgency], threshold=threshold)
        disagreement = fields.get("on_disagreement", "flag")
        if disagreement not in ("flag", "hold"):
            raise ConfigurationError('policy: on_disagreement: "flag" or "hold"')
        budget = fields.get("budget", "").strip()
        return made_of(rules, cast(Any, disagreement), budget_of(budget or None))
    except ConfigurationError as error:
        raise HTTPException(422, str(error)) from error


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise HTTPException(422, "policy: not JSON") from error


def _policy(raw: object) -> Policy:
    try:
        return policy_from_json(raw)
    except ConfigurationError as error:
        raise HTTPException(422, str(error)) from error


def _configured(policy: Policy) -> dict[str, Any]:
    return {"number": CONFIGURED, "policy": policy_to_json(policy)}


def _raised(flag: Raised | None) -> dict[str, Any] | None:
    if flag is None:
        return None
    reasons = [reason.words for reason in flag.reasons]
    return {"at": flag.at.isoformat(), "urgency": flag.urgency.name, "reasons": reasons}


def _preview(seen: Preview) -> dict[str, Any]:
    return {
        "since": seen.since.isoformat(),
        "until": seen.until.isoformat(),
        "studies": seen.studies,
        "films": seen.films,
        **{
            side: {
                "raised": load.raised,
                "urgencies": {urgency.name: count for urgency, count in load.urgencies.items()},
                "per_hour": load.per_hour,
                "busiest": load.busiest,
            }
            for side, load in (("before", seen.before), ("after", seen.after))
        },
        "gained": seen.gained,
        "lost": seen.lost,
        "other_urgency": seen.other_urgency,
        "changed": [
            {"study_uid": c.study_uid, "before": _raised(c.before), "after": _raised(c.after)}
            for c in seen.changed[:SHOWN]
        ],
        "days": [asdict(span) for span in seen.days],
        "hours": [asdict(span) for span in seen.hours],
        "shares": {output: asdict(share) for output, share in seen.shares.items()},
    }
