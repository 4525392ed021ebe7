"""The web application served on a port of its own, in a thread of its own."""

from __future__ import annotations

import threading
import time

import uvicorn

from schemas.errors import ConfigurationError


class WebServer:
    """The page in a thread of its own."""

    def __init__(self, app: object, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # open pages listen for news and would hold it for ever
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)

    def start(self, timeout: float = 10.0) -> None:
        """Start; returns once the port is open. Raises `ConfigurationError` when it cannot be opened."""
        self._thread.start()
        until = time.monotonic() + timeout
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                where = f"{self._server.config.host}:{self._server.config.port}"
                raise ConfigurationError(f"web: cannot listen on {where}; is another program using it?")
            time.sleep(0.01)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Stop; open pages are dropped."""
        self._server.should_exit = True
        self._thread.join(5.0)
