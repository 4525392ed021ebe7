"""A figure on both databases."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.postgres import cluster_of_our_own

Rows = list[tuple[str, str, str]]


def on_both(measure: Callable[[str, str, Path], Rows]) -> Rows:
    """Rows of `measure` with the database's name, its URL, and a folder, for SQLite and for PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure("SQLite", f"sqlite:///{folder}/hilum.db", Path(folder))
    with tempfile.TemporaryDirectory() as folder, cluster_of_our_own() as cluster:
        return rows + measure("PostgreSQL", cluster.fresh(), Path(folder))
