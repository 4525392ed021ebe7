"""The administrator's pages of people and programs' keys, and the auditor's trail."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, TypeAlias

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from schemas.errors import RecordError
from schemas.person import Account, Person, Role
from worker.worklist.web.desk import Desk
from worker.worklist.web.entry import Number, depends, digest, new_key, new_secret
from worker.worklist.web.routes.door import INVITED_FOR

DEEDS: Final = 100  # on one page
Before: TypeAlias = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Words: TypeAlias = Annotated[str, Query(max_length=200)]
Uid: TypeAlias = Annotated[str, Query(max_length=64)]


class Office:
    """What an administrator does with people and keys, by page or by API. Raises `RecordError` where it cannot be."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def one(self, number: int) -> Account:
        """Raises `HTTPException` 404."""
        account = self._desk.people.show(number)
        if account is None:
            raise HTTPException(404, "no such person")
        return account

    def add(self, request: Request, name: str, role: Role) -> tuple[Person, str]:
        """Somebody new, and the link by which they choose a password."""
        added = self._desk.people.add(name, role, self._desk.clock())
        self._desk.note(request, "invited", person=added.name, role=role.value)
        return added, self._link(request, added.id)

    def invite(self, request: Request, number: int) -> tuple[Account, str]:
        """A new link; it voids the one before."""
        account = self.one(number)
        if account.disabled:
            raise HTTPException(404, "this person is shut out")
        self._desk.note(request, "invited", person=account.name, role=account.role.value)
        return account, self._link(request, number)

    def change(self, request: Request, number: int, role: Role | None, disabled: bool | None) -> None:
        """Of what is given, what is not so already."""
        account = self.one(number)
        if role is not None and role is not account.role:
            self._desk.people.set_role(number, role)
            self._desk.note(request, "changed a role", person=account.name, role=role.value)
        if disabled is not None and disabled is not account.disabled:
            self._desk.people.disable(number, disabled=disabled)
            self._desk.note(request, "shut out" if disabled else "let in again", person=account.name)

    def add_key(self, request: Request, name: str, role: Role, days: int) -> tuple[int, str]:
        """A program's key, with its number; 0 days: for ever."""
        key, now = new_key(), self._desk.clock()
        person: Person = request.state.person
        number = self._desk.people.add_token(
            name=name,
            role=role,
            digest=digest(key),
            created_by=person.name,
            now=now,
            expires_at=now + timedelta(days=days) if days else None,
        )
        self._desk.note(request, "made a key", key=name, role=role.value)
        return number, key

    def revoke(self, request: Request, number: int) -> None:
        """Raises `HTTPException` 404."""
        if not self._desk.people.revoke(number):
            raise HTTPException(404, "no such key")
        self._desk.note(request, "revoked a key", number=number)

    def _link(self, request: Request, person: int) -> str:
        secret = new_secret()
        self._desk.people.invite(person, digest(secret), self._desk.clock() + INVITED_FOR)
        return f"{self._desk.rules.address(request)}/welcome/{secret}"


def router(desk: Desk) -> APIRouter:
    """`/people`, `/keys`, `/audit`."""
    routes = APIRouter(include_in_schema=False)
    administrator = Role.ADMINISTRATOR
    office = Office(desk)

    def people(request: Request, code: int = 200, **more: object) -> Response:
        values = {"people": desk.people.everybody(), "tokens": desk.people.tokens(), "link": "", "key": "", "fault": ""}
        return desk.page(request, "people.html", {**values, **more}, code)

    @routes.get("/people")
    def everybody(request: Request, person: Person = depends(desk, administrator, Role.AUDITOR)) -> Response:
        return people(request)

    @routes.post("/people")
    def add(
        request: Request,
        name: Annotated[str, Form()],
        role: Annotated[Role, Form()],
        person: Person = depends(desk, administrator),
    ) -> Response:
        try:
            added, link = office.add(request, name, role)
        except RecordError as error:
            return people(request, 422, fault=str(error))
        return people(request, link=link, invited=added.name)

    @routes.post("/people/{number}/invite")
    def invite(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        account, link = office.invite(request, number)
        return people(request, link=link, invited=account.name)

    @routes.post("/people/{number}")
    def change(
        request: Request,
        number: Number,
        person: Person = depends(desk, administrator),
        role: Annotated[Role | None, Form()] = None,
        disabled: Annotated[bool | None, Form()] = None,
    ) -> Response:
        try:
            office.change(request, number, role, disabled)
        except RecordError as error:
            return people(request, 409, fault=str(error))
        return RedirectResponse("/people", 303)

    @routes.post("/keys")
    def add_key(
        request: Request,
        name: Annotated[str, Form()],
        role: Annotated[Role, Form()],
        person: Person = depends(desk, administrator),
        days: Annotated[int, Form(ge=0, le=3650)] = 365,
    ) -> Response:
        try:
            _, key = office.add_key(request, name, role, days)
        except RecordError as error:
            return people(request, 422, fault=str(error))
        return people(request, key=key, keyed=name)

    @routes.post("/keys/{number}/revoke")
    def revoke(request: Request, number: Number, person: Person = depends(desk, administrator)) -> Response:
        office.revoke(request, number)
        return RedirectResponse("/people", 303)

    @routes.get("/audit")
    def audit(
        request: Request,
        person: Person = depends(desk, administrator, Role.AUDITOR),
        before: Before = None,
        who: Words = "",
        action: Words = "",
        study: Uid = "",
    ) -> Response:
        found = desk.audit.deeds(DEEDS + 1, before=before, who=who, action=action, study_uid=study)
        values = {
            "deeds": found[:DEEDS],
            "more": found[DEEDS - 1][0] if len(found) > DEEDS else None,
            "who": who,
            "action": action,
            "study": study,
        }
        return desk.page(request, "audit.html", values)

    return routes
