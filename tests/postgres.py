"""A PostgreSQL of our own for the tests: a fresh cluster on a Unix socket, gone at the end.

    from tests.postgres import postgres  # noqa: F401  in a conftest

`postgres.fresh()` gives the URL of a new, empty database. Fails, never skips, when PostgreSQL is not installed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


class Cluster:
    """A running server; everything in it is thrown away, so it need not wait for the disk."""

    def __init__(self, folder: Path) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = str(programs[-1]) if programs else shutil.which("initdb")
        if found is None:
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        self._programs = Path(found).resolve().parent
        self._folder = folder
        # The server refuses to run as root; Debian's package brings a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._names = (f"t{n}" for n in itertools.count())
        self._run(
            "initdb", "-D", folder / "data", "-U", "hilum", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": folder,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "shared_buffers": "32MB",
            "deadlock_timeout": "100ms",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [self._programs / "postgres", "-D", folder / "data", *options],
                user=self._user,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{program}: {done.stderr}")

    def _wait(self) -> None:
        for _ in range(600):
            try:
                self._server().close()
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"PostgreSQL did not start:\n{(self._folder / 'log').read_text()}")

    def _server(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self._folder), user="hilum", dbname="postgres", autocommit=True)

    def fresh(self, template: str = "template1") -> str:
        """URL of a new database, a copy of `template` (a name or the URL of an earlier one, not in use)."""
        name = next(self._names)
        source = template.partition("?")[0].rpartition("/")[2]
        with self._server() as server:
            server.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
        return f"postgresql+psycopg://hilum@/{name}?host={self._folder}"

    def disconnect_all(self) -> None:
        """End every session, as a restart of the server does."""
        with self._server() as server:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def stop(self) -> None:
        """Stop the server at once; nothing in it is kept."""
        self.process.send_signal(signal.SIGQUIT)  # "immediate" shutdown
        self.process.wait(60)


@contextmanager
def cluster_of_our_own() -> Iterator[Cluster]:
    """A running cluster, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hilum-postgres-"))
    cluster = None
    try:
        cluster = Cluster(folder)
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the whole run."""
    with cluster_of_our_own() as cluster:
        yield cluster
