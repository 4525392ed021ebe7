"""One way into the database: a transaction is a function, run again when the database asks for that.

SQLite (WAL, synchronous FULL: a commit is on the disk) for one host, PostgreSQL for several processes and hosts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from schemas.errors import RecordError

log = logging.getLogger("hilum.record")

T = TypeVar("T")

ATTEMPTS: Final = 8
BUSY_SECONDS: Final = 30.0  # how long a writer waits for writers of other processes (SQLite)
_MIGRATING: Final = 0x68696C75  # key of PostgreSQL's advisory lock: one process migrates
# SQLSTATE: serialization failure, deadlock, lock not available; unique violation (somebody inserted first)
_AGAIN: Final = frozenset({"40001", "40P01", "55P03", "23505"})


class Database:
    """Thread-safe. `url` is SQLAlchemy's: `sqlite:///path` or `postgresql+psycopg://user@host/name`."""

    def __init__(self, url: str) -> None:
        """Nothing is opened yet, only the folder of an SQLite file is made. Raises `RecordError`."""
        try:
            parsed = make_url(url)
            self.sqlite = parsed.get_backend_name() == "sqlite"
            if self.sqlite:
                if parsed.database in (None, "", ":memory:"):
                    raise RecordError("[database] url: SQLite in memory forgets; name a file: sqlite:///var/hilum.db")
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            self._engine = _sqlite(url) if self.sqlite else _server(url)
        except (ArgumentError, ImportError) as error:
            raise RecordError("[database] url: use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from error
        except OSError as error:
            raise RecordError(f"[database] url: folder cannot be made: {error.strerror}") from error
        # Reads see one state from first statement to last: SQLite's way, and PostgreSQL's when asked.
        level = {"begin": "BEGIN"} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**level)
        # SQLite has one writer at a time. Threads queue here, where waiting is cheap and in order; its own waiting
        # is sleep and try again, which is left for other processes.
        self._writer: AbstractContextManager[object] = threading.Lock() if self.sqlite else nullcontext()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit; when this returns, it is on the disk.

        `work` may run more than once (deadlock, lost connection), so it does nothing but talk to the database.

        Raises
        ------
        RecordError
            The database refused or is away; nothing was changed. Errors of `work` itself pass unchanged.
        """
        return self._run(work, write=True)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that sees one state of the database and changes nothing."""
        return self._run(work, write=False)

    def _run(self, work: Callable[[Connection], T], *, write: bool) -> T:
        attempt = 1
        while True:
            try:
                engine = self._engine if write else self._reader
                with self._writer if write else nullcontext(), engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if attempt == ATTEMPTS or not (state in _AGAIN or error.connection_invalidated):
                    raise RecordError(_words(error)) from error
                log.info("again sqlstate=%s attempt=%d", state, attempt)
                attempt += 1
            except SQLAlchemyError as error:
                raise RecordError(f"database: {type(error).__name__}") from error

    def migrate(self) -> None:
        """Bring the database to the version of this code. Safe to run by several processes at once."""
        self.write(lambda connection: self._alembic(connection, "upgrade", "head"))

    def downgrade(self, revision: str) -> None:
        """Back to an earlier version; "base" is an empty database."""
        self.write(lambda connection: self._alembic(connection, "downgrade", revision))

    def _alembic(self, connection: Connection, direction: str, revision: str) -> None:
        if not self.sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)

    def check(self) -> None:
        """Reachable and at the version of this code.

        Raises
        ------
        RecordError
            The message names the mend.
        """
        wanted = ScriptDirectory.from_config(_config()).get_current_head()
        found = self.read(lambda connection: MigrationContext.configure(connection).get_current_heads())
        if found != (wanted,):
            raise RecordError(
                f"database is at version {', '.join(found) or 'none'}, this program needs {wanted}: run `hilum migrate`"
            )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "schemas:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _sqlite(url: str) -> Engine:
    # Last in, first out: one connection, with a warm page cache, does nearly all the writing.
    engine = sa.create_engine(
        url,
        pool_size=8,
        max_overflow=-1,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a writer waits at the door; a read that later wants to write would fail at once instead.
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))

    return engine


def _server(url: str) -> Engine:
    return sa.create_engine(
        url,
        pool_size=16,
        max_overflow=16,
        pool_timeout=60,
        pool_use_lifo=True,
        hide_parameters=True,
    )


def _words(error: DBAPIError) -> str:
    # Of PostgreSQL only the first line: the rest may quote the row, which holds a patient.
    return f"database: {str(error.orig).partition(chr(10))[0]}"
