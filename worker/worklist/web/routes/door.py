"""Signing in and out: password, the first link, the idle lock."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.errors import RecordError
from schemas.person import Person
from worker.record.people import Credentials
from worker.worklist import passwords
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import (
    cookie,
    depends,
    digest,
    going,
    local,
    new_secret,
    same_origin,
    session_of,
    set_cookie,
    set_going,
)
from worker.worklist.web.oidc import Identity, Provider, Refused, state_of

INVITED_FOR: Final = timedelta(days=3)  # a link to choose a password with is good for so long
# The same words whatever it was: nobody learns here which names are known, or which are locked.
_WRONG: Final = "name or password is not right; after several wrong ones the account is locked for some minutes"
_GONE: Final = "this link was used, or is too old: ask for another"
_BUSY: Final = "too many people sign in at this moment: try again in a few seconds"


def router(desk: Desk) -> APIRouter:
    """`/sign-in`, `/sign-in/oidc`, `/sign-out`, `/lock`, `/locked`, `/still-in`, `/welcome/SECRET`."""
    routes = APIRouter(include_in_schema=False)

    def enter(request: Request, person: Person, where: str) -> Response:
        """A session of its own, whatever cookie the browser came with (session fixation)."""
        old = cookie(request)
        if old:
            desk.people.sign_out(digest(old))
        secret = new_secret()
        if not desk.people.sign_in(person.id, digest(secret), desk.clock()):
            raise HTTPException(403, "this account was shut out")
        request.state.person = person
        desk.note(request, "signed in")
        response = RedirectResponse(local(where), 303)
        set_cookie(request, response, secret)
        return response

    def check(request: Request, name: str, password: str) -> tuple[Person | None, str]:
        """Whose password it is, or what to tell. Nothing tells a name that is known from one that is not, nor a right
        password from a wrong one while the account is locked; each takes as long as the other."""
        now = desk.clock()
        known = desk.people.credentials(name)
        open_ = known is not None and not known.disabled and (known.locked_until is None or known.locked_until <= now)
        try:
            right = passwords.is_right(password, known.password if known is not None and open_ else None)
        except passwords.Busy:
            return None, _BUSY
        note = partial(desk.audit.note, now=now, address=request.client.host if request.client else "")
        if known is None:
            # Not by which name: a password is easily typed in its place.
            note("nobody", "wrong name")
        elif right:
            freshen(known, password)
            return known.person, ""
        elif open_:
            until = desk.people.wrong_password(known.person.id, now)
            note(known.person.name, "wrong password", detail={"locked": until is not None})
        return None, _WRONG

    def freshen(known: Credentials, password: str) -> None:
        """Hash it as is asked for today."""
        if known.password is not None and passwords.is_outdated(known.password):
            with suppress(passwords.Busy):  # then the next time
                desk.people.rehash(known.person.id, passwords.hashed(password))

    def ours(request: Request) -> None:
        if not same_origin(request):
            raise HTTPException(403, "this form came from another site")

    @routes.get("/sign-in")
    def ask(request: Request, next: str = "/") -> Response:  # noqa: A002  the query's own name
        return asked_again(request, local(next), "", 200)

    def asked_again(request: Request, where: str, fault: str, code: int, name: str = "") -> Response:
        elsewhere = desk.oidc.rules.label if desk.oidc else ""
        values = {"next": where, "fault": fault, "name": name[:100], "elsewhere": elsewhere}
        return desk.page(request, "sign-in.html", values, code)

    @routes.post("/sign-in")
    def sign_in(
        request: Request,
        name: Annotated[str, Form()] = "",
        password: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        ours(request)
        person, fault = check(request, name, password)
        if person is None:
            return asked_again(request, local(next), fault, 429 if fault == _BUSY else 401, name)
        return enter(request, person, next)

    if desk.oidc is not None:
        _elsewhere(routes, desk, desk.oidc, enter, asked_again)

    @routes.post("/sign-out")
    def sign_out(request: Request, person: Person = depends(desk)) -> Response:
        desk.note(request, "signed out")
        desk.people.sign_out(digest(cookie(request)))
        response = RedirectResponse("/sign-in", 303)
        set_cookie(request, response, "")
        return response

    @routes.post("/lock")
    def lock(request: Request, next: Annotated[str, Form()] = "/", person: Person = depends(desk)) -> Response:  # noqa: A002
        desk.people.lock(digest(cookie(request)))
        return RedirectResponse(f"/locked?{urlencode({'next': local(next)})}", 303)

    @routes.get("/still-in")
    def still_in(person: Person = depends(desk)) -> Response:
        """Asked by pages that are open (with `X-Again`, else it would be a use of the session)."""
        return Response(status_code=204)

    @routes.get("/locked")
    def locked(request: Request, next: str = "/") -> Response:  # noqa: A002
        found = session_of(desk, request)
        if found is None:
            return RedirectResponse(f"/sign-in?{urlencode({'next': local(next)})}", 303)
        if not found.locked:
            return RedirectResponse(local(next), 303)
        return still_locked(request, found.person.name, local(next), "", 200)

    def still_locked(request: Request, name: str, where: str, fault: str, code: int) -> Response:
        elsewhere = desk.oidc.rules.label if desk.oidc else ""
        values = {"next": where, "fault": fault, "name": name, "elsewhere": elsewhere}
        return desk.page(request, "locked.html", values, code)

    @routes.post("/locked")
    def unlock(
        request: Request,
        password: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        ours(request)
        found = session_of(desk, request)
        if found is None:
            return RedirectResponse(f"/sign-in?{urlencode({'next': local(next)})}", 303)
        owner = found.person
        person, fault = check(request, owner.name, password)
        if person is None:
            return still_locked(request, owner.name, local(next), fault, 429 if fault == _BUSY else 401)
        return enter(request, person, next)

    @routes.get("/welcome/{secret}")
    def welcome(request: Request, secret: str) -> Response:
        person = desk.people.invited(digest(secret), desk.clock())
        if person is None:
            raise HTTPException(404, _GONE)
        return desk.page(request, "welcome.html", {"invited": person, "fault": "", "shortest": passwords.SHORTEST})

    @routes.post("/welcome/{secret}")
    def choose(
        request: Request,
        secret: str,
        password: Annotated[str, Form()] = "",
        again: Annotated[str, Form()] = "",
    ) -> Response:
        ours(request)
        person = desk.people.invited(digest(secret), desk.clock())
        if person is None:
            raise HTTPException(404, _GONE)
        fault = passwords.fault(password, person.name) or ("" if password == again else "the two are not the same")
        if not fault:
            try:
                entered = desk.people.accept(digest(secret), passwords.hashed(password), desk.clock())
            except passwords.Busy:
                fault = _BUSY
            else:
                if entered is None:
                    raise HTTPException(404, _GONE)
                request.state.person = entered
                desk.note(request, "chose a password")
                return enter(request, entered, "/")
        return desk.page(
            request, "welcome.html", {"invited": person, "fault": fault, "shortest": passwords.SHORTEST}, 422
        )

    return routes


def _elsewhere(
    routes: APIRouter,
    desk: Desk,
    provider: Provider,
    enter: Callable[[Request, Person, str], Response],
    ask: Callable[[Request, str, str, int], Response],
) -> None:
    """The way by the OpenID provider: there, and back."""

    def back(request: Request) -> str:
        return f"{desk.rules.address(request)}/sign-in/oidc/done"

    @routes.get("/sign-in/oidc")
    def go(request: Request, next: str = "/", again: bool = False) -> Response:  # noqa: A002
        secret = new_secret()
        try:
            where = provider.begin(secret, back(request), desk.rules.idle, again=again)
        except Refused as refused:
            return ask(request, local(next), str(refused), 503)
        response = RedirectResponse(where, 303)
        set_going(request, response, secret, local(next))
        return response

    @routes.get("/sign-in/oidc/done")
    def come(request: Request, code: str = "", state: str = "", iss: str = "") -> Response:
        secret, where = going(request)
        try:
            if not secret or not hmac.compare_digest(state.encode(), state_of(secret).encode()):
                raise Refused("this took too long, or was begun in another browser: try again")
            if iss and iss.rstrip("/") != provider.rules.issuer.rstrip("/"):  # RFC 9207: another provider answers
                raise Refused("the answer is not of the provider that was asked")
            if not code:
                raise Refused(f"{provider.rules.label} did not let you in")
            found = provider.finish(secret, code, back(request), desk.clock(), desk.rules.idle)
            response = enter(request, known(request, found), where)
        except Refused as refused:
            desk.audit.note("nobody", "not let in by OpenID Connect", desk.clock(), detail={"why": str(refused)})
            response = ask(request, where, str(refused), 403)
        set_going(request, response, "", "/")
        return response

    def known(request: Request, found: Identity) -> Person:
        """Whose account it is: made at the first time; with the role that the provider gives today."""
        account = desk.people.by_subject(found.subject)
        if account is None:
            return add(request, found)
        if account.disabled:
            raise Refused("this account was shut out")
        person = Person(id=account.id, name=account.name, role=found.role)
        request.state.person = person
        if account.role is not found.role:
            try:
                desk.people.set_role(account.id, found.role)
            except RecordError as error:
                raise Refused(str(error)) from error
            desk.note(request, "changed a role", person=account.name, role=found.role.value, by="OpenID Connect")
        return person

    def add(request: Request, found: Identity) -> Person:
        """Never the account of somebody who only has the same name."""
        name = found.name if desk.people.named(found.name) is None else f"{found.name} ({provider.rules.label})"
        try:
            person = desk.people.add(name, found.role, desk.clock(), found.subject)
        except RecordError as error:
            raise Refused(str(error)) from error
        request.state.person = person
        desk.note(request, "came by OpenID Connect", person=person.name, role=found.role.value)
        return person
