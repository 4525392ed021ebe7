"""Alembic's entry: the connection, already in a transaction, comes from `worker.record.database`."""

from __future__ import annotations

from alembic import context

from schemas.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by making it anew
)
context.run_migrations()
