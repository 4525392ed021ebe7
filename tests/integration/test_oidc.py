"""Signing in by a real OpenID provider: there and back, with the role that it gives, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from schemas.person import Role
from tests import oidc as peer
from tests.unit.worklist.ward import Ward
from worker.record.audit import Audit
from worker.worklist.web.oidc import Provider, Rules

ROLES = {"xray-readers": Role.RADIOLOGIST, "xray-office": Role.ADMINISTRATOR}


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """A record, whose clock is the provider's."""
    made = Ward(tmp_path, now=datetime.now(UTC))
    made.people.add("keeper", Role.ADMINISTRATOR, made.now)
    yield made
    made.close()


def provider(**options: object) -> Provider:
    said = {"issuer": peer.issuer(), "client_id": peer.CLIENT, "client_secret": peer.SECRET, "roles": ROLES}
    return Provider(Rules(**{**said, "label": "the hospital", **options}))  # type: ignore[arg-type]


def browser(ward: Ward, **options: object) -> TestClient:
    app = ward.app(oidc=provider(**options))
    return TestClient(app, base_url="http://localhost:8080", follow_redirects=False)


def go(client: TestClient, who: str, where: str = "/", at: peer.Browser | None = None) -> str:
    """To the provider and back; the address that it sends the browser back to."""
    begun = client.get("/sign-in/oidc", params={"next": where})
    assert begun.status_code == 303, begun.text
    return (at or peer.Browser()).sign_in(begun.headers["location"], who)


def actions(ward: Ward) -> list[str]:
    return [deed.action for _, deed in Audit(ward.database).deeds(100)]


def test_there_and_back_with_the_role_that_the_provider_gives(ward: Ward) -> None:
    client = browser(ward)
    page = client.get("/sign-in?next=/second-look").text
    assert 'href="/sign-in/oidc?next=/second-look">Sign in with the hospital</a>' in page
    answer = client.get(go(client, "reader.xray-readers", "/second-look?a=1&b=2"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/second-look?a=1&b=2")
    cookies = answer.headers.get_list("set-cookie")
    assert any(cookie.startswith("hilum=") and "HttpOnly" in cookie for cookie in cookies)
    assert any(cookie.startswith('hilum-going="";') and "Max-Age=0" in cookie for cookie in cookies)
    assert "reader" in client.get("/").text
    account = ward.people.named("reader")
    assert account is not None
    assert (account.role, account.subject) == (Role.RADIOLOGIST, f"{peer.issuer()} reader.xray-readers")
    assert not account.has_password
    assert actions(ward) == ["signed in", "came by OpenID Connect"]


def test_the_second_time_it_is_the_same_account_with_the_role_of_today(ward: Ward) -> None:
    client = browser(ward)
    client.get(go(client, "reader.xray-readers"))
    account = ward.people.named("reader")
    assert account is not None
    ward.people.set_role(account.id, Role.ADMINISTRATOR)
    client = browser(ward)
    assert client.get(go(client, "reader.xray-readers")).status_code == 303
    assert [a.name for a in ward.people.everybody()] == ["keeper", "reader"]
    assert ward.people.named("reader").role is Role.RADIOLOGIST  # type: ignore[union-attr]
    assert "changed a role" in actions(ward)


def test_who_has_no_role_does_not_come_in(ward: Ward) -> None:
    client = browser(ward)
    answer = client.get(go(client, "visitor.other-group"))
    assert answer.status_code == 403
    assert "no role in hilum" in answer.text
    assert [a.name for a in ward.people.everybody()] == ["keeper"]
    assert client.get("/").status_code == 303


def test_nobody_gets_an_account_by_its_name(ward: Ward) -> None:
    client = browser(ward)
    client.get(go(client, "keeper.xray-readers"))
    assert [(a.name, a.role) for a in ward.people.everybody()] == [
        ("keeper", Role.ADMINISTRATOR),
        ("keeper (the hospital)", Role.RADIOLOGIST),
    ]


def test_who_is_shut_out_stays_so(ward: Ward) -> None:
    client = browser(ward)
    client.get(go(client, "reader.xray-readers"))
    ward.people.disable(ward.people.named("reader").id)  # type: ignore[union-attr]
    client = browser(ward)
    answer = client.get(go(client, "reader.xray-readers"))
    assert answer.status_code == 403
    assert "shut out" in answer.text


def test_an_answer_counts_once_and_in_the_browser_that_asked(ward: Ward) -> None:
    client = browser(ward)
    back = go(client, "reader.xray-readers")
    stranger = browser(ward)
    assert stranger.get(back).status_code == 403, "login CSRF: the answer to somebody else's question"
    going = client.cookies["hilum-going"]
    assert client.get(back).status_code == 303
    again = browser(ward)
    again.cookies.set("hilum-going", going)
    assert again.get(back).status_code == 403, "a code is good once"
    other = browser(ward)
    other.get("/sign-in/oidc")
    assert other.get(back).status_code == 403, "the answer to another question"


def test_whoever_signed_in_there_long_ago_is_asked_again(ward: Ward) -> None:
    """Else the idle lock would open by itself."""
    client, at_provider = browser(ward), peer.Browser()
    client.get(go(client, "reader.xray-readers", at=at_provider))
    begun = client.get("/sign-in/oidc").headers["location"]
    assert parse_qs(urlsplit(begun).query)["max_age"] == ["1800"]
    client.get(at_provider.sign_in(begun, "reader.xray-readers"))
    ward.now += timedelta(minutes=32)
    answer = client.get(go(client, "reader.xray-readers", at=at_provider))  # its clock has not moved
    assert answer.status_code == 403
    assert "too long ago" in answer.text


def test_a_refusal_there_is_told_here(ward: Ward) -> None:
    client = browser(ward)
    begun = client.get("/sign-in/oidc").headers["location"]
    state = parse_qs(urlsplit(begun).query)["state"][0]
    answer = client.get("/sign-in/oidc/done", params={"error": "access_denied", "state": state})
    assert answer.status_code == 403
    assert "the hospital did not let you in" in answer.text.lower()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"client_secret": "wrong"}, 403, "does not answer, or refuses"),
        ({"issuer": "http://127.0.0.1:9"}, 503, "does not answer, or refuses"),
    ],
)
def test_a_wrong_setting_lets_nobody_in(ward: Ward, options: dict[str, object], code: int, words: str) -> None:
    client = browser(ward, **options)
    answer = client.get("/sign-in/oidc")
    if answer.status_code == 303:
        answer = client.get(peer.Browser().sign_in(answer.headers["location"], "reader.xray-readers"))
    assert answer.status_code == code
    assert words in answer.text
    assert [a.name for a in ward.people.everybody()] == ["keeper"]
