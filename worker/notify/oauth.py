"""Who hilum is to an HTTP server: a bearer token (RFC 6750), given, or got by client credentials (RFC 6749 4.4)."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from typing import Any, Final, Protocol
from urllib.parse import quote_plus, urlencode, urlsplit

from schemas.errors import PermanentFailure, TransientFailure
from worker.notify.http import HttpLine, refusal

_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 2.1, b64token
_ERROR: Final = re.compile(r"[a-z_]{1,40}")  # RFC 6749 5.2
_LONGEST: Final = 64 * 1024  # bytes of an answer
_UNSAID: Final = 300.0  # seconds that a token is used whose life was not told
_EARLY: Final = 30.0  # seconds before its end in which a token is not used any more; a tenth of a short life
_MENDS: Final = {
    400: "mend client_id, client_secret and scope of this destination",
    401: "mend client_id and client_secret of this destination",
    403: "mend client_id and scope of this destination, or hilum's rights there",
    404: "nothing is there: mend token_url of this destination",
    405: "it takes nothing there: mend token_url of this destination",
}


class Access(Protocol):
    """Where the token of a request comes from."""

    def token(self) -> str:
        """The bearer token; empty where none is wanted. Raises `DeliveryError`."""

    def refused(self) -> bool:
        """The token was not taken (401); whether there may be another."""

    def close(self) -> None:
        """Release connections."""


class GivenToken:
    """A token that does not expire, or none."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    def token(self) -> str:
        """The same every time."""
        return self._token

    def refused(self) -> bool:
        """There is no other."""
        return False

    def close(self) -> None:
        """Nothing is kept open."""


class ClientCredentials:
    """Asks the site's authorization server, and again shortly before the token expires."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: str,
        scope: str = "",
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
    ) -> None:
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # RFC 6749 2.3.1: each is encoded for a form before both are joined; every server must take this way.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        self._headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        self._body = urlencode({"grant_type": "client_credentials", **({"scope": scope} if scope else {})}).encode()
        self._line = HttpLine(url, tls=tls, timeout=timeout)
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """The one in hand, or a new one. Raises `TransientFailure` or `PermanentFailure`."""
        if not self._token or time.monotonic() >= self._until:
            self._token, life = self._ask()
            self._until = time.monotonic() + life - min(_EARLY, life / 10)
        return self._token

    def refused(self) -> bool:
        """Forget it: the next one is new."""
        self._token = ""
        return True

    def close(self) -> None:
        """Release the connection."""
        self._line.close()

    def _ask(self) -> tuple[str, float]:
        answer = self._line.ask("POST", self._target, self._body, self._headers, longest=_LONGEST)
        said = _object(answer.body)
        if answer.status != 200:
            error = str(said.get("error", ""))
            raise refusal(answer, self._line.where, _MENDS, error if _ERROR.fullmatch(error) else "")
        token, kind, life = said.get("access_token"), said.get("token_type"), said.get("expires_in", _UNSAID)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise PermanentFailure(f"{self._line.where}: it gives no token: mend token_url of this destination")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise PermanentFailure(f"{self._line.where}: its token is no bearer token: have it give one")
        if not isinstance(life, int | float) or not 0 < life < 1e9:
            raise TransientFailure(f"{self._line.where}: its token has expired already: look at its log")
        return token, float(life)


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
