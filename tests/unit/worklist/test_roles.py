"""Who may do what: every route by every role, and by nobody; every write with and without the token of its session.

A route that is not in `MAY` fails here: say whose it is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from httpx import Response

from schemas.person import Role
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from worker.worklist.web import oidc
from worker.worklist.web.desk import Rules
from worker.worklist.web.entry import csrf_of, digest, new_key
from worker.worklist.web.live import Newsroom

ALL: Final = frozenset(Role)
READERS: Final = frozenset({Role.RADIOLOGIST, Role.ADMINISTRATOR})
SEERS: Final = frozenset({Role.ADMINISTRATOR, Role.AUDITOR})
ADMINISTRATOR: Final = frozenset({Role.ADMINISTRATOR})

# Before anybody is signed in.
OPEN: Final = frozenset(
    {
        "GET /sign-in",
        "POST /sign-in",
        "GET /sign-in/oidc",
        "GET /sign-in/oidc/done",
        "GET /locked",
        "POST /locked",
        "GET /welcome/{secret}",
        "POST /welcome/{secret}",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",  # to whoever asks from this machine, or with a key: see test_watching
    }
)
MAY: Final = {
    "POST /sign-out": ALL,
    "POST /lock": ALL,
    "GET /still-in": ALL,
    # reading
    "GET /": ALL,
    "GET /events": ALL,
    "POST /views": ALL,
    "GET /studies/{study_uid}": ALL,
    "GET /studies/{study_uid}/disagree": READERS,
    "POST /studies/{study_uid}/claim": READERS,
    "POST /studies/{study_uid}/release": READERS,
    "POST /studies/{study_uid}/read": READERS,
    "POST /studies/{study_uid}/judge": READERS,
    "POST /studies/{study_uid}/undo": READERS,
    "GET /second-look": ALL,
    "POST /second-look/{study_uid}/done": READERS,
    "GET /studies/{study_uid}/films/{sop_uid}/pixels": ALL,
    "GET /studies/{study_uid}/films/{sop_uid}/activation": ALL,
    "GET /api/v1/worklist": ALL,
    "GET /api/v1/studies/{study_uid}": ALL,
    "GET /api/v1/studies/{study_uid}/films/{sop_uid}/pixels": ALL,
    "GET /api/v1/studies/{study_uid}/films/{sop_uid}/activation": ALL,
    "POST /api/v1/studies/{study_uid}/claim": READERS,
    "POST /api/v1/studies/{study_uid}/release": READERS,
    "POST /api/v1/studies/{study_uid}/read": READERS,
    "POST /api/v1/studies/{study_uid}/judge": READERS,
    "POST /api/v1/studies/{study_uid}/undo": READERS,
    "GET /api/v1/feedback": SEERS,
    "GET /api/openapi.json": ALL,
    # people
    "GET /people": SEERS,
    "POST /people": ADMINISTRATOR,
    "POST /people/{number}": ADMINISTRATOR,
    "POST /people/{number}/invite": ADMINISTRATOR,
    "POST /keys": ADMINISTRATOR,
    "POST /keys/{number}/revoke": ADMINISTRATOR,
    "GET /audit": SEERS,
    "GET /api/v1/people": SEERS,
    "POST /api/v1/people": ADMINISTRATOR,
    "POST /api/v1/people/{number}": ADMINISTRATOR,
    "POST /api/v1/people/{number}/invite": ADMINISTRATOR,
    "GET /api/v1/keys": SEERS,
    "POST /api/v1/keys": ADMINISTRATOR,
    "POST /api/v1/keys/{number}/revoke": ADMINISTRATOR,
    "GET /api/v1/audit": SEERS,
    # policy
    "GET /policy": ALL,
    "POST /policy": ADMINISTRATOR,
    "GET /policy/{number}": ALL,
    "POST /policy/{number}/enact": ADMINISTRATOR,
    "GET /api/v1/policies": ALL,
    "POST /api/v1/policies": ADMINISTRATOR,
    "GET /api/v1/policies/current": ALL,
    "GET /api/v1/policies/preview": ALL,
    "GET /api/v1/policies/curves": ALL,
    "GET /api/v1/policies/{number}": ALL,
    "POST /api/v1/policies/{number}/enact": ADMINISTRATOR,
    # watching
    "GET /watching": ALL,
    "POST /watching/pause": ADMINISTRATOR,
    "POST /watching/resume": ADMINISTRATOR,
    "POST /watching/destinations/{name}/test": ADMINISTRATOR,
    "POST /watching/destinations/{name}/replay": ADMINISTRATOR,
    "POST /watching/baselines/{number}/set-aside": ADMINISTRATOR,
    "GET /api/v1/watching": ALL,
    "POST /api/v1/watching/baselines/{number}/set-aside": ADMINISTRATOR,
    "POST /api/v1/watching/pause": ADMINISTRATOR,
    "POST /api/v1/watching/resume": ADMINISTRATOR,
    "POST /api/v1/watching/destinations/{name}/test": ADMINISTRATOR,
    "POST /api/v1/watching/destinations/{name}/replay": ADMINISTRATOR,
    # models
    "GET /models": SEERS,
    "POST /models": ADMINISTRATOR,
    "POST /models/rollback": ADMINISTRATOR,
    "GET /models/{model}": SEERS,
    "POST /models/{model}/promote": ADMINISTRATOR,
    "POST /models/{model}/move": ADMINISTRATOR,
    "GET /models/{model}/compare": SEERS,
    "GET /api/v1/models": SEERS,
    "POST /api/v1/models": ADMINISTRATOR,
    "GET /api/v1/models/history": SEERS,
    "GET /api/v1/models/live-at": SEERS,
    "POST /api/v1/models/rollback": ADMINISTRATOR,
    "GET /api/v1/models/{model}": SEERS,
    "POST /api/v1/models/{model}/promote": ADMINISTRATOR,
    "POST /api/v1/models/{model}/move": ADMINISTRATOR,
    "GET /api/v1/models/{model}/compare": SEERS,
    # training
    "GET /training": SEERS,
    "GET /training/events": SEERS,
    "POST /training/runs": ADMINISTRATOR,
    "GET /training/runs/{number}": SEERS,
    "GET /training/runs/{number}/report": SEERS,
    "POST /training/runs/{number}/cancel": ADMINISTRATOR,
    "POST /training/runs/{number}/resume": ADMINISTRATOR,
    "POST /training/runs/{number}/register": ADMINISTRATOR,
    "POST /training/calendar": ADMINISTRATOR,
    "POST /training/calendar/{number}/remove": ADMINISTRATOR,
    "GET /api/v1/training/runs": SEERS,
    "POST /api/v1/training/runs": ADMINISTRATOR,
    "GET /api/v1/training/runs/{number}": SEERS,
    "GET /api/v1/training/runs/{number}/report": SEERS,
    "POST /api/v1/training/runs/{number}/cancel": ADMINISTRATOR,
    "POST /api/v1/training/runs/{number}/resume": ADMINISTRATOR,
    "POST /api/v1/training/runs/{number}/register": ADMINISTRATOR,
    "GET /api/v1/training/trainers": SEERS,
    "GET /api/v1/training/calendar": SEERS,
    "POST /api/v1/training/calendar": ADMINISTRATOR,
    "DELETE /api/v1/training/calendar/{number}": ADMINISTRATOR,
}
OPENID: Final = oidc.Rules(issuer="https://login.example", client_id="hilum", client_secret="x", roles={})
VALUES: Final = {"study_uid": "2.25.1", "sop_uid": "2.25.1.1.1", "number": "1", "secret": "none", "model": "none"}


class House:
    """One record and its application, for every test of this file; each call is a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.ward = Ward(folder)
        self.ward.study(1, read(PNEUMOTHORAX))
        self.app: FastAPI = self.ward.app(rules=Rules(research=True), oidc=oidc.Provider(OPENID))

    def call(self, route: str, secret: str = "", **headers: str) -> Response:
        method, _, path = route.partition(" ")
        client = TestClient(
            self.app,
            base_url="http://localhost:8080",
            cookies={"hilum": secret} if secret else {},
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.request(
            method, re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], "1"), path), headers=named
        )

    def by(self, role: Role, route: str, **headers: str) -> Response:
        """Somebody of this role who just signed in, with the token of that session unless another is given."""
        secret = self.ward.session(role)
        return self.call(route, secret, **{"x_csrf": csrf_of(secret), **headers})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Somebody else's study, and nobody who changes it between two calls."""
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.ward.close()


@pytest.fixture(autouse=True)
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that end."""

    async def ended(self: Newsroom) -> AsyncIterator[str]:
        yield "event: here\ndata:\n\n"

    monkeypatch.setattr(Newsroom, "stream", ended)


def routes(house: House) -> set[str]:
    return {
        f"{method} {context.path}"
        for context in iter_route_contexts(house.app.routes)
        for method in (context.methods or ())
    }


def writes(house: House) -> list[str]:
    return sorted(route for route in routes(house) - OPEN if not route.startswith("GET "))


def refused(answer: Response) -> bool:
    return answer.status_code == 403


def let_in(answer: Response) -> bool:
    """Whatever came of it then: a study that is not there, a form without fields."""
    turned_away = answer.status_code in {401, 403} or "/sign-in" in answer.headers.get("location", "")
    return (not turned_away and answer.status_code < 500) or answer.status_code == 503


def test_every_route_says_whose_it_is(house: House) -> None:
    found = routes(house)
    assert len(found) > 60
    assert found - OPEN - MAY.keys() == set(), "new: say in MAY who may"
    assert (OPEN | MAY.keys()) - found == set(), "gone"


@pytest.mark.parametrize("role", Role)
def test_each_role_may_what_it_may_and_nothing_else(house: House, role: Role) -> None:
    wrong = []
    for route in sorted(routes(house) - OPEN):
        answer = house.by(role, route)
        if route == "POST /sign-out":
            right = answer.headers["location"] == "/sign-in"
        else:
            right = let_in(answer) if role in MAY.get(route, ()) else refused(answer)
        if not right:
            wrong.append((route, answer.status_code, answer.text[:200]))
    assert wrong == []


def test_nobody_sees_anything(house: House) -> None:
    wrong = []
    for route in sorted(routes(house) - OPEN):
        for secret in ("", "a cookie that is none of ours"):
            answer = house.call(route, secret)
            is_api, is_stream = "/api/" in route, route.endswith("/events")
            right = (
                answer.status_code == 401
                if is_api or is_stream
                else answer.status_code == 303 and answer.headers["location"].startswith("/sign-in?next=")
            )
            if not right or "PHANTOM" in answer.text:
                wrong.append((route, answer.status_code))
    assert wrong == []


def test_a_locked_session_sees_nothing_and_keeps_its_place(house: House) -> None:
    secret = house.ward.session(Role.ADMINISTRATOR)
    house.ward.people.lock(digest(secret))
    wrong = []
    for route in sorted(routes(house) - OPEN):
        answer = house.call(route, secret)
        is_api, is_stream = "/api/" in route, route.endswith("/events")
        right = (
            answer.status_code == 401
            if is_api or is_stream
            else answer.status_code == 303 and answer.headers["location"].startswith("/locked?next=")
        )
        if not right or "PHANTOM" in answer.text:
            wrong.append((route, answer.status_code))
    assert wrong == []
    assert house.call("GET /studies/{study_uid}", secret).headers["location"] == "/locked?next=%2Fstudies%2F2.25.1"


FORGED: Final = {
    "without a token": {"x_csrf": ""},
    "with another's token": {"x_csrf": csrf_of("another session")},
    "from another site": {"sec_fetch_site": "cross-site"},
    "from a neighbouring site": {"sec_fetch_site": "same-site"},
    "from a page of nowhere": {"origin": "null"},
    "from another origin": {"origin": "https://evil.example"},
    "from another port": {"origin": "http://localhost:9999"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED.keys())
def test_no_write_is_taken_from_a_page_that_is_not_of_the_session(house: House, headers: dict[str, str]) -> None:
    wrong = []
    for route in writes(house):
        answer = house.by(Role.ADMINISTRATOR, route, **headers)
        if answer.status_code != 403 or "not of your session" not in answer.text:
            wrong.append((route, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize(
    "headers",
    [{"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"origin": "http://localhost:8080"}],
)
def test_a_page_of_the_session_may_write(house: House, headers: dict[str, str]) -> None:
    for route in writes(house):
        assert let_in(house.by(Role.ADMINISTRATOR, route, **headers)) or route == "POST /sign-out", route


def test_the_token_counts_in_a_form_too(house: House) -> None:
    secret, other = house.ward.session(), house.ward.session()
    client = TestClient(house.app, base_url="http://localhost:8080", cookies={"hilum": secret}, follow_redirects=False)
    for token, code in ((csrf_of(secret), 303), (csrf_of(other), 403), ("", 403), ("é", 403)):
        assert client.post("/views", data={"name": "mine", "query": "q=a", "csrf": token}).status_code == code
    files = {"csrf": ("csrf", csrf_of(secret))}
    assert client.post("/views", data={"name": "mine"}, files=files).status_code == 403, "a file is no token"
    assert client.post("/views", content=b"csrf=" + csrf_of(secret).encode()).status_code == 403, "no form at all"


# Keys of programs


def key(house: House, role: Role, days: float | None = 1) -> str:
    from datetime import timedelta

    made, now = new_key(), house.ward.now
    house.ward.people.add_token(
        name=f"program {role}",
        role=role,
        digest=digest(made),
        created_by="dr one",
        now=now,
        expires_at=None if days is None else now + timedelta(days=days),
    )
    return made


@pytest.mark.parametrize("role", Role)
def test_a_key_opens_the_api_as_far_as_its_role_goes_and_no_page(house: House, role: Role) -> None:
    bearer = f"Bearer {key(house, role)}"
    wrong = []
    for route in sorted(routes(house) - OPEN):
        answer = house.call(route, authorization=bearer)
        if "/api/" not in route:
            right = answer.status_code in {303, 401} and "PHANTOM" not in answer.text
        else:
            right = let_in(answer) if role in MAY.get(route, ()) else refused(answer)
        if not right:
            wrong.append((route, answer.status_code, answer.text[:200]))
    assert wrong == []


def test_only_a_good_key_opens(house: House) -> None:
    good = key(house, Role.AUDITOR, None)
    assert house.call("GET /api/v1/worklist", authorization=f"Bearer {good}").status_code == 200
    assert house.call("GET /api/v1/worklist", authorization=f"bearer  {good} ").status_code == 200
    over = key(house, Role.AUDITOR, -1)
    revoked = key(house, Role.AUDITOR, None)
    house.ward.people.revoke(house.ward.people.tokens()[0].id)
    for bad in (f"Bearer {over}", f"Bearer {revoked}", f"Bearer {good}x", "Bearer ", "Bearer é", f"Basic {good}", good):
        answer = house.call("GET /api/v1/worklist", authorization=bad.encode("latin-1"))  # type: ignore[arg-type]
        assert answer.status_code == 401, bad
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "PHANTOM" not in answer.text


def test_a_bad_key_is_not_mended_by_a_cookie(house: House) -> None:
    secret = house.ward.session()
    assert house.call("GET /api/v1/worklist", secret).status_code == 200
    assert house.call("GET /api/v1/worklist", secret, authorization="Bearer none").status_code == 401


def test_what_a_key_does_is_the_keys(house: House) -> None:
    made = key(house, Role.RADIOLOGIST)
    house.ward.study(7, read(PNEUMOTHORAX))
    client = TestClient(house.app, base_url="http://localhost:8080", headers={"Authorization": f"Bearer {made}"})
    assert client.post("/api/v1/studies/2.25.7/claim").status_code == 200
    (row,) = [row for row in house.ward.worklist.rows(10) if row.study_uid == "2.25.7"]
    assert row.claimed_by == "token program radiologist"
    from worker.record.audit import Audit

    ((_, deed),) = Audit(house.ward.database).deeds(1, study_uid="2.25.7")
    assert (deed.who, deed.action) == ("token program radiologist", "claimed")
    assert made not in str(deed)


def test_whoever_is_shut_out_or_given_another_role_feels_it_at_once(house: House) -> None:
    secret = house.ward.session(Role.RADIOLOGIST, "dr three")
    account = house.ward.people.named("dr three")
    assert account is not None
    assert house.call("GET /", secret).status_code == 200
    assert house.call("GET /people", secret).status_code == 403
    house.ward.people.set_role(account.id, Role.AUDITOR)
    assert house.call("GET /people", secret).status_code == 200
    house.ward.session(Role.ADMINISTRATOR)
    house.ward.people.disable(account.id)
    assert house.call("GET /people", secret).status_code == 303
