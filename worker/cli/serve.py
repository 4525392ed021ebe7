"""`hilum serve`: the worker itself."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import ConfigurationError
from worker.cli.options import ConfigOption, Stop, clear_errors, console, settings_from


@clear_errors
def serve(
    config: ConfigOption = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated roles for this process: receive, read, deliver, web, upkeep.", metavar="ROLE,…"
        ),
    ] = None,
) -> None:
    """Run the worker: listener, readers, delivery, page and upkeep, all in one process or `--only` some of them.

    SIGTERM or Ctrl-C stops it; what was acknowledged is safe at any moment, also when it is killed.
    """
    from worker.assemble import Role, Worker
    from worker.watch.logs import configure

    try:
        roles = tuple(Role) if only is None else tuple(Role(r.strip()) for r in only.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--only: {error}; choose among {', '.join(Role)}") from error
    settings = settings_from(config)
    configure(settings.log_level)
    stopping = Stop()
    worker = Worker(settings, roles)
    try:
        worker.start()
        if worker.listener is not None:
            console.print(f"listening as {settings.dicom.ae_title} on {settings.dicom.host}:{worker.listener.port}")
        if worker.web is not None:
            from worker.desk import address, first_link

            page = address(settings.web, worker.web.port)
            console.print(f"worklist at {page}/")
            if link := first_link(worker.database, page):
                console.print(f"nobody can enter yet; choose the administrator's password at {link}", soft_wrap=True)
        stopping.wait()
    finally:
        worker.stop()
