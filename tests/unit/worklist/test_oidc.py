"""What an OpenID provider says is taken only when it is proven; the real one is in tests/integration/test_oidc.py."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from schemas.errors import ConfigurationError
from schemas.person import Role
from worker.settings import load
from worker.worklist.web.entry import new_secret
from worker.worklist.web.oidc import Identity, Provider, Refused, Rules, is_safe, state_of

NOW = datetime(2026, 3, 14, 22, 10, tzinfo=UTC)
AT = int(NOW.timestamp())
IDLE = timedelta(minutes=30)
ISSUER = "https://login.hospital.example/realm"
BACK = "https://hilum.hospital.example/sign-in/oidc/done"
KEY, OTHER = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
RULES = Rules(
    issuer=ISSUER,
    client_id="hilum",
    client_secret="s3cret/+ ",
    roles={"readers": Role.RADIOLOGIST, "office": Role.ADMINISTRATOR, "audit": Role.AUDITOR},
    label="the hospital",
)
OFFERED: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://login.hospital.example/auth",
    "token_endpoint": "https://login.hospital.example/token",
    "jwks_uri": "https://login.hospital.example/keys",
}


class Peer:
    """A provider that says what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.offered = dict(OFFERED)
        self.keys: dict[str, Any] = KeySet([KEY]).as_dict(private=False)
        self.token: object = None
        self.asked: list[tuple[str, dict[str, str], Mapping[str, str]]] = []

    def __call__(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        self.asked.append((url, dict(parse_qsl((body or b"").decode())), headers))
        answers = {
            f"{ISSUER}/.well-known/openid-configuration": self.offered,
            OFFERED["jwks_uri"]: self.keys,
            OFFERED["token_endpoint"]: {} if self.token is None else {"id_token": self.token},
        }
        return answers[url]


@pytest.fixture
def secret() -> str:
    return new_secret()


@pytest.fixture
def peer() -> Peer:
    return Peer()


def asked_of(where: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(where).query).items()}


def claims(peer: Peer, secret: str, **changed: Any) -> dict[str, Any]:
    """A good token's; what is changed to None is left out."""
    nonce = asked_of(Provider(RULES, peer).begin(secret, BACK, IDLE))["nonce"]
    good = {
        "iss": ISSUER,
        "sub": "7",
        "aud": "hilum",
        "exp": AT + 300,
        "iat": AT,
        "auth_time": AT - 60,
        "nonce": nonce,
        "preferred_username": "reader",
        "groups": ["staff", "readers"],
    }
    return {key: value for key, value in {**good, **changed}.items() if value is not None}


def signed(said: dict[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    return jwt.encode({"alg": algorithm, "kid": "1"}, said, key, algorithms=[algorithm])


def finish(peer: Peer, secret: str, rules: Rules = RULES) -> Identity:
    return Provider(rules, peer).finish(secret, "a code", BACK, NOW, IDLE)


def test_what_is_proven_is_taken(peer: Peer, secret: str) -> None:
    peer.token = signed(claims(peer, secret))
    assert finish(peer, secret) == Identity(subject=f"{ISSUER} 7", name="reader", role=Role.RADIOLOGIST)


def test_the_question_and_its_proof_fit(peer: Peer, secret: str) -> None:
    peer.token = signed(claims(peer, secret))
    asked = asked_of(Provider(RULES, peer).begin(secret, BACK, IDLE))
    finish(peer, secret)
    (_, sent, headers) = next(each for each in peer.asked if each[0] == OFFERED["token_endpoint"])
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"] == sent["redirect_uri"] == BACK
    assert asked["state"] == state_of(secret)
    assert (asked["code_challenge_method"], asked["max_age"]) == ("S256", "1800")
    digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"hilum:s3cret%2F%2B%20"
    assert "client_secret" not in sent
    assert len({asked["state"], asked["nonce"], sent["code_verifier"], secret}) == 4
    assert asked_of(Provider(RULES, peer).begin(new_secret(), BACK, IDLE))["state"] != asked["state"]


def test_a_provider_that_takes_the_secret_in_the_form_gets_it_there(peer: Peer, secret: str) -> None:
    peer.offered["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    peer.token = signed(claims(peer, secret))
    finish(peer, secret)
    (_, sent, headers) = next(each for each in peer.asked if each[0] == OFFERED["token_endpoint"])
    assert (sent["client_id"], sent["client_secret"]) == ("hilum", "s3cret/+ ")
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"aud": ["hilum", "another"]},  # for whom was it made?
        {"aud": ["hilum", "another"], "azp": "another"},
        {"azp": "another"},
        {"exp": AT - 61},
        {"exp": None},
        {"iat": AT + 61},
        {"iat": None},
        {"nbf": AT + 61},
        {"nonce": "another"},
        {"nonce": None},
        {"auth_time": AT - 1861},
        {"auth_time": None},
        {"auth_time": "yesterday"},
        {"groups": ["staff"]},
        {"groups": None},
        {"groups": {"readers": True}},
        {"groups": [["readers"]]},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(peer: Peer, secret: str, changed: dict[str, Any]) -> None:
    peer.token = signed(claims(peer, secret, **changed))
    with pytest.raises(Refused):
        finish(peer, secret)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["hilum"]},
        {"aud": ["hilum", "another"], "azp": "hilum"},
        {"exp": AT - 59},
        {"iat": AT + 59},
        {"groups": "readers"},
        {"groups": ["audit", "readers"]},
    ],
    ids=str,
)
def test_what_fits_in_another_way_is_taken(peer: Peer, secret: str, changed: dict[str, Any]) -> None:
    peer.token = signed(claims(peer, secret, **changed))
    assert finish(peer, secret).role is Role.RADIOLOGIST


def test_a_token_that_nobody_signed_is_refused(peer: Peer, secret: str) -> None:
    said = claims(peer, secret)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    public = json.dumps(KEY.as_dict(private=False)).encode()
    forged = [
        signed(said, OTHER),
        signed(said, ECKey.generate_key("P-256", {"kid": "1"}), "ES256"),
        signed(said, OctKey.import_key(RULES.client_secret.encode() * 4), "HS256"),
        signed(said, OctKey.import_key(public), "HS256"),
        f"{part({'alg': 'none'})}.{part(said)}.",
        signed(said).rpartition(".")[0] + ".",
        signed(said)[:-6] + "AAAAAA",
        "no token",
        "",
        None,
        {"a": "dict"},
    ]
    for token in forged:
        peer.token = token
        with pytest.raises(Refused):
            finish(peer, secret)
    peer.token = signed(said)
    for keys in ({"keys": []}, {}, {"keys": [{"kty": "RSA"}]}, {"keys": "x"}):
        peer.keys = keys
        with pytest.raises(Refused):
            finish(peer, secret)


def test_the_keys_of_today_count(peer: Peer, secret: str) -> None:
    peer.token = signed(claims(peer, secret), OTHER)
    peer.keys = KeySet([OTHER]).as_dict(private=False)
    assert finish(peer, secret).name == "reader"


@pytest.mark.parametrize(
    "offered",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"authorization_endpoint": "http://login.hospital.example/auth"},
        {"token_endpoint": "http://login.hospital.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
    ids=str,
)
def test_what_is_offered_unsafely_is_not_taken(peer: Peer, secret: str, offered: dict[str, Any]) -> None:
    peer.token = signed(claims(peer, secret))
    peer.offered |= offered
    with pytest.raises(Refused):
        finish(peer, secret)
    with pytest.raises(Refused):
        Provider(RULES, peer).begin(secret, BACK, IDLE)


def test_of_several_roles_the_highest_and_the_claim_may_lie_deeper(peer: Peer, secret: str) -> None:
    from dataclasses import replace

    rules = replace(RULES, role_claim="realm_access.roles", name_claim="given", fresh=False)
    deeper = {"realm_access": {"roles": ["audit", "office", "readers"]}}
    peer.token = signed(claims(peer, secret, auth_time=None, email="r@hospital.example", **deeper))
    assert finish(peer, secret, rules) == Identity(
        subject=f"{ISSUER} 7", name="r@hospital.example", role=Role.ADMINISTRATOR
    )
    assert "max_age" not in asked_of(Provider(rules, peer).begin(secret, BACK, IDLE))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example/x", True),
        ("http://127.0.0.1:9/x", True),
        ("http://[::1]/x", True),
        ("http://localhost/x", True),
        ("http://login.example/x", False),
        ("http://127.0.0.1.evil.example/", False),
        ("https:///x", False),
        ("ftp://127.0.0.1/", False),
        ("", False),
    ],
)
def test_what_is_safe(url: str, safe: bool) -> None:
    assert is_safe(url) is safe


# The configuration

GOOD = """
[web.oidc]
issuer = "https://login.hospital.example/realm"
client_id = "hilum"
client_secret = "file:{folder}/secret"
label = "the hospital"
[web.oidc.roles]
readers = "radiologist"
"""


def test_it_is_configured(tmp_path: Path) -> None:
    from worker.desk import provider

    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "hilum.toml").write_text(GOOD.format(folder=tmp_path))
    settings = load(tmp_path / "hilum.toml")
    made = provider(settings)
    assert made is not None
    assert made.rules == Rules(
        issuer=ISSUER,
        client_id="hilum",
        client_secret="s3cret",
        roles={"readers": Role.RADIOLOGIST},
        label="the hospital",
    )
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("https://", "http://", "issuer"),
        ("/realm", "/realm?x=1", "issuer"),
        ('"radiologist"', '"king"', "roles"),
        ('readers = "radiologist"', "", "roles"),
        ("label", 'scope = "profile"\nlabel', "oidc"),
        ('client_id = "hilum"', "", "client_id"),
    ],
)
def test_what_is_configured_wrongly_is_told(tmp_path: Path, old: str, new: str, key: str) -> None:
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "hilum.toml").write_text(GOOD.replace(old, new).format(folder=tmp_path))
    with pytest.raises(ConfigurationError, match=key):
        load(tmp_path / "hilum.toml")
