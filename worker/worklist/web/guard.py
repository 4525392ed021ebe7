"""What stands before every page: who may ask (Host), how much (length), and what a browser may do with the answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from fastapi import HTTPException
from starlette.datastructures import Headers as Given
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing from elsewhere, nothing inline, nothing that makes markup out of text.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",  # patients' names stay out of the browser's cache
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

LONGEST: Final = 1 << 20  # bytes of a request's body; it is taken in before anybody knows who sends it
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


class Headers:
    """ASGI middleware: `HEADERS` on every answer; what a page sets itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class KnownHost(TrustedHostMiddleware):
    """Refuses a Host that is not ours: a stranger's page must not reach a loopback port by DNS rebinding."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        super().__init__(app, allowed_hosts=[*LOOPBACK, *hosts], www_redirect=False)


class Bounded:
    """ASGI middleware: no request is longer than `LONGEST`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is short enough."""
        declared = Given(scope=scope).get("content-length", "0") if scope["type"] == "http" else "0"
        if not declared.isdecimal() or int(declared) > LONGEST:
            await PlainTextResponse("this is too long", 413)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LONGEST:
                raise HTTPException(413, "this is too long")
            return message

        await self._app(scope, counted, send)
