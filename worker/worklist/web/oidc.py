"""OpenID Connect: the hospital's provider says who somebody is (Core 1.0, authorization code with PKCE, RFC 7636).

All that is remembered between going there and coming back is one secret in the browser, from which state, nonce and
verifier are derived: any process of hilum can finish what another began. What the provider offers is asked anew each
time: people sign in seldom, and its keys may have changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from schemas.person import Role

# Only what a public key proves: a token "signed" by what everybody knows proves nothing.
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY: Final = 60  # seconds by which two clocks may differ
_TIMEOUT: Final = 10.0  # seconds
_LONGEST: Final = 1 << 20  # bytes of an answer
_RANK: Final = (Role.ADMINISTRATOR, Role.RADIOLOGIST, Role.AUDITOR)  # who has several has the first of these

Ask = Callable[[str, bytes | None, Mapping[str, str]], Any]


class Refused(Exception):
    """Nobody comes in by this; the message is for the person at the door."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the site says of its provider, by `[web.oidc]`."""

    issuer: str
    client_id: str
    client_secret: str
    roles: Mapping[str, Role]  # by value of the claim
    label: str = "OpenID Connect"
    role_claim: str = "groups"  # "a.b": the claim b in the object a
    name_claim: str = "preferred_username"
    scope: str = "openid profile"
    fresh: bool = True  # whoever signed in there long ago is asked again
    ca_file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who the provider says that somebody is."""

    subject: str  # "issuer subject"
    name: str
    role: Role


class Provider:
    """The hospital's provider."""

    def __init__(self, rules: Rules, ask: Ask | None = None) -> None:
        self.rules = rules
        self._ask = ask or _over_http(rules.ca_file)

    def begin(self, secret: str, redirect_uri: str, idle: timedelta, *, again: bool = False) -> str:
        """Where the browser goes; `again`: whoever is there gives the password there once more, for it was locked here.

        Raises `Refused` where the provider does not answer.
        """
        asked = {
            "response_type": "code",
            "client_id": self.rules.client_id,
            "redirect_uri": redirect_uri,
            "scope": self.rules.scope,
            "state": state_of(secret),
            "nonce": _derived(secret, "nonce"),
            "code_challenge": _base64(hashlib.sha256(_derived(secret, "verifier").encode()).digest()),
            "code_challenge_method": "S256",
        }
        if self.rules.fresh:
            asked["max_age"] = str(int(idle.total_seconds()))
        if again:
            asked["prompt"] = "login"
        where = self._offered()["authorization_endpoint"]
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    def finish(self, secret: str, code: str, redirect_uri: str, now: datetime, idle: timedelta) -> Identity:
        """Who came back with this code. Raises `Refused`."""
        offered = self._offered()
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": _derived(secret, "verifier"),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        client, password = self.rules.client_id, self.rules.client_secret
        if "client_secret_basic" in offered.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
            both = f"{quote(client, safe='')}:{quote(password, safe='')}"  # RFC 6749 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        else:
            sent |= {"client_id": client, "client_secret": password}
        token = self._ask(offered["token_endpoint"], urlencode(sent).encode(), headers).get("id_token")
        keys = self._ask(offered["jwks_uri"], None, {"Accept": "application/json"})
        claims = self._proven(token, keys, now)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), _derived(secret, "nonce").encode()):
            raise Refused("the answer was to another question: try again")
        if self.rules.fresh:
            self._is_fresh(claims, now, idle)
        return self._identity(claims)

    def _offered(self) -> dict[str, Any]:
        issuer = self.rules.issuer.rstrip("/")
        offered = self._ask(f"{issuer}/.well-known/openid-configuration", None, {"Accept": "application/json"})
        if str(offered.get("issuer", "")).rstrip("/") != issuer:
            raise Refused(f"{self.rules.label} names itself otherwise than [web.oidc] issuer does")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not is_safe(str(offered.get(name, ""))):
                raise Refused(f"{self.rules.label} offers no safe {name}")
        return dict(offered)

    def _proven(self, token: object, keys: object, now: datetime) -> dict[str, Any]:
        """The claims of an ID token, its signature and whom it is for verified (Core 1.0, 3.1.3.7)."""
        registry = JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=_LEEWAY,
            iss={"essential": True},
            sub={"essential": True},
            aud={"essential": True, "value": self.rules.client_id},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            found = jwt.decode(str(token), KeySet.import_key_set(keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type]
            registry.validate(found.claims)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"what {self.rules.label} said is not proven ({type(error).__name__})") from error
        claims = found.claims
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self.rules.client_id) != self.rules.client_id:
            raise Refused(f"what {self.rules.label} said is for another program")
        if str(claims["iss"]).rstrip("/") != self.rules.issuer.rstrip("/"):
            raise Refused(f"what was said is not by {self.rules.label}")
        return claims

    def _is_fresh(self, claims: Mapping[str, Any], now: datetime, idle: timedelta) -> None:
        at = claims.get("auth_time")
        if not isinstance(at, int | float):
            raise Refused(f"{self.rules.label} does not say when you signed in there; see [web.oidc] fresh")
        if now.timestamp() - at > idle.total_seconds() + _LEEWAY:
            raise Refused(f"you signed in at {self.rules.label} too long ago: sign out there, and try again")

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        found: Any = claims
        for part in self.rules.role_claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        values = found if isinstance(found, list) else [found]
        roles = {self.rules.roles[value] for value in values if isinstance(value, str) and value in self.rules.roles}
        role = next((role for role in _RANK if role in roles), None)
        if role is None:
            raise Refused("your account has no role in hilum: whoever keeps the accounts can give it one")
        names = (claims.get(claim) for claim in (self.rules.name_claim, "name", "email", "sub"))
        name = next(str(each) for each in names if each)
        return Identity(subject=f"{self.rules.issuer.rstrip('/')} {claims['sub']}", name=name, role=role)


def state_of(secret: str) -> str:
    """What comes back with the answer, so that it is the answer to this browser's question."""
    return _derived(secret, "state")


def is_safe(url: str) -> bool:
    """Whether nobody on the way can read or change what is said: TLS, or this machine itself."""
    parsed = urlsplit(url)
    if parsed.scheme == "https" and parsed.hostname:
        return True
    try:
        return parsed.scheme == "http" and ip_address(parsed.hostname or "").is_loopback
    except ValueError:
        return parsed.scheme == "http" and parsed.hostname == "localhost"


def _derived(secret: str, purpose: str) -> str:
    return _base64(hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A secret is not carried on to wherever."""


def _over_http(ca_file: Path | None) -> Ask:
    context = ssl.create_default_context(cafile=ca_file)
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )

    def ask(url: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(url, body, dict(headers))  # noqa: S310  `is_safe` looked at it
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                found = json.loads(answer.read(_LONGEST))
        except (OSError, HTTPException, ValueError) as error:
            raise Refused("the sign-in service does not answer, or refuses: try again") from error
        if not isinstance(found, dict):
            raise Refused("the sign-in service answers in a way that is not understood")
        return found

    return ask
