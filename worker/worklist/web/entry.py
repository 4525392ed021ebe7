"""Who may come in: sessions by cookie for people, keys for programs; what each role may; nothing by a stranger's page.

A cookie is a secret of 256 bits, of which the record knows the digest. It opens what its person's role may, until it is
idle for too long: then it shows nothing until the password is given again, and the place is kept. A form carries a
token that is derived from the cookie (OWASP: HMAC-based token), so that no other site can send one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Annotated, Final, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from fastapi import Depends, Path, Request, Response
from starlette.exceptions import HTTPException

from schemas.person import Person, Role
from worker.record.people import Session
from worker.worklist.web.desk import Desk

ANYBODY: Final = tuple(Role)
Number: TypeAlias = Annotated[int, Path(ge=0, le=2**31 - 1)]  # of a row, in a path; more no database holds
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_GOING: Final = 600  # seconds for somebody to sign in at the OpenID provider
_KEY: Final = "hil_"  # keys of programs begin with it, so that scanners find them where they do not belong


class SignInFirst(Exception):
    """Nobody is signed in, or the session is locked: the browser goes to `where`."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


def digest(secret: str) -> str:
    """As which the record knows a cookie, a link or a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret(prefix: str = "") -> str:
    """256 bits in URL-safe letters."""
    return prefix + secrets.token_urlsafe(32)


def new_key() -> str:
    """For a program."""
    return new_secret(_KEY)


def cookie_name(request: Request) -> str:
    """With its prefix a browser takes it from this host alone, and over TLS alone (RFC 6265bis 4.1.3.2)."""
    return "__Host-hilum" if request.url.scheme == "https" else "hilum"


def cookie(request: Request) -> str:
    """The secret that the browser came with; empty where there is none."""
    return request.cookies.get(cookie_name(request), "")


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Until the browser is closed, or the session is over; an empty secret takes the cookie back."""
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=None if secret else 0,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
        path="/",
    )


def set_going(request: Request, response: Response, secret: str, where: str) -> None:
    """While the browser is at the OpenID provider: what its answer must fit, and where to go then."""
    response.set_cookie(
        f"{cookie_name(request)}-going",
        f"{secret}.{quote(where, safe='')}" if secret else "",
        max_age=_GOING if secret else 0,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
        path="/",
    )


def going(request: Request) -> tuple[str, str]:
    """What `set_going` said; empty where it said nothing, or long ago."""
    secret, _, where = request.cookies.get(f"{cookie_name(request)}-going", "").partition(".")
    return secret, local(unquote(where))


def csrf_of(secret: str) -> str:
    """The token of a session's forms."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def local(path: str) -> str:
    """Where to go next: a path of ours, whatever was asked for."""
    own = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if own and path.isprintable() and len(path) < 2000 else "/"


def same_origin(request: Request) -> bool:
    """Whether a page of ours sent it, as far as the browser says; programs say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


def session_of(desk: Desk, request: Request) -> Session | None:
    """The browser's session. What a page asks by itself (`X-Again`, `…/events`) keeps none from being locked."""
    secret, rules = cookie(request), desk.rules
    if not secret:
        return None
    by_itself = "x-again" in request.headers or request.url.path.endswith("/events")
    return desk.people.session(digest(secret), desk.clock(), idle=rules.idle, longest=rules.longest, used=not by_itself)


def signed_in(desk: Desk, request: Request) -> Person:
    """Who asks, by cookie, or by key where programs ask: keys open no pages.

    Raises
    ------
    SignInFirst
        A browser without a session, or with a locked one.
    HTTPException
        401: a program without a good key.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    is_api = request.url.path.startswith("/api/")
    now = desk.clock()
    if is_api and scheme.lower() == "bearer":
        person = desk.people.by_token(digest(key.strip()), now)
        if person is None:
            raise HTTPException(401, "this key opens nothing here", {"WWW-Authenticate": "Bearer"})
        request.state.person, request.state.csrf, request.state.by_key = person, "", True
        return person
    secret = cookie(request)
    session = session_of(desk, request)
    if session is None or session.locked:
        if is_api:
            raise HTTPException(401, "sign in, or send a key as Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
        door = "/sign-in" if session is None else "/locked"
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise SignInFirst(f"{door}?next={quote(back if request.method == 'GET' else '/', safe='')}")
    request.state.person, request.state.csrf, request.state.by_key = session.person, csrf_of(secret), False
    return session.person


async def _token(request: Request) -> str:
    """Of a form, or of a script's request."""
    if request.method in _SAFE:
        return ""
    if "x-csrf" in request.headers:
        return request.headers["x-csrf"]
    kind = request.headers.get("content-type", "")
    if not kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return ""
    return str((await request.form()).get("csrf", ""))


def allowed(desk: Desk, *roles: Role) -> Callable[..., Person]:
    """A dependency: whoever is signed in, if they have one of `roles` (none given: any); writes need their token."""
    may = frozenset(roles or ANYBODY)

    def dependency(request: Request, token: Annotated[str, Depends(_token)]) -> Person:
        person = signed_in(desk, request)
        if person.role not in may:
            raise HTTPException(403, f"this is not for a{'n' if person.role[0] in 'aeiou' else ''} {person.role}")
        writes = request.method not in _SAFE and not request.state.by_key
        is_ours = same_origin(request) and hmac.compare_digest(token.encode(), request.state.csrf.encode())
        if writes and not is_ours:
            raise HTTPException(403, "this form is not of your session any more: load the page again")
        return person

    return dependency


def depends(desk: Desk, *roles: Role) -> Person:
    """`person: Person = depends(desk, Role.ADMINISTRATOR)` as a route's parameter."""
    found: Person = Depends(allowed(desk, *roles))
    return found
