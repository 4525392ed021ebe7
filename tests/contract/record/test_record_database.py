"""Migrations forward and back, what `check` says, and what a lost or full database does."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from schemas.errors import RecordError, status_of
from schemas.tables import Base
from tests.contract.record.given import LEASE, NOW, Record
from tests.postgres import Cluster
from worker.record.database import Database


def names(connection: sa.Connection) -> list[str]:
    return sorted(sa.inspect(connection).get_table_names())


def indexes(connection: sa.Connection) -> dict[str, list[str]]:
    """Name, columns, uniqueness and condition of every index, by table."""
    found = sa.inspect(connection)
    return {
        table: sorted(
            f"{i['name']} {i.get('expressions', i['column_names'])} {i['unique']} "
            f"{ {k: str(v) for k, v in i.get('dialect_options', {}).items()} }"
            for i in found.get_indexes(table)
        )
        for table in names(connection)
    }


def test_forward_and_back(empty_url: str) -> None:
    database = Database(empty_url)
    database.migrate()
    database.migrate()
    tables = database.read(names)
    assert set(tables) == {*Base.metadata.tables, "alembic_version"}
    database.downgrade("base")
    assert database.read(names) == ["alembic_version"]
    database.migrate()
    assert database.read(names) == tables
    database.close()


def test_the_migrations_arrive_at_the_tables(empty_url: str) -> None:
    database = Database(empty_url)
    database.migrate()

    def difference(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    assert database.read(difference) == []
    migrated = database.read(indexes)
    database.downgrade("base")
    database.write(Base.metadata.create_all)
    made = database.read(indexes)
    database.close()
    del migrated["alembic_version"], made["alembic_version"]
    assert migrated == made  # the conditions of partial indexes too, which Alembic does not compare


def test_check_names_the_mend(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(RecordError, match="hilum migrate"):
        database.check()
    database.migrate()
    database.check()
    database.downgrade("base")
    with pytest.raises(RecordError, match="hilum migrate"):
        database.check()
    database.close()


def migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.check()
    database.close()


def test_processes_that_migrate_at_once_do_not_disturb_one_another(empty_url: str) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=migrate, args=(empty_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]


def test_what_cannot_be_a_database_is_said_so(tmp_path: Path) -> None:
    for url in ("nonsense", "sqlite://", "sqlite:///:memory:", "oracle://x", "mysql+nope://x"):
        with pytest.raises(RecordError, match=r"\[database\] url"):
            Database(url)
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"\[database\] url"):
        Database(f"sqlite:///{tmp_path}/file/hilum.db")
    (tmp_path / "text.db").write_text("this is no database" * 1000)
    with pytest.raises(RecordError, match="not a database"):
        Database(f"sqlite:///{tmp_path}/text.db").check()


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="database"):
        Database(f"postgresql+psycopg://hilum@/none?host={tmp_path}").check()


def test_sqlite_keeps_what_it_acknowledges(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new/folder/hilum.db")
    database.migrate()

    def settings(connection: sa.Connection) -> list[object]:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas]

    assert database.read(settings) == ["wal", 2, 1, 30_000]
    database.close()


def test_a_reader_of_sqlite_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/hilum.db")
    database.migrate()
    record = Record(database, "")
    inside, done = threading.Event(), threading.Event()

    def hold(_connection: sa.Connection) -> None:
        inside.set()
        assert done.wait(30)

    thread = threading.Thread(target=database.write, args=(hold,))
    thread.start()
    assert inside.wait(30)
    assert record.worklist.rows(10) == []
    done.set()
    thread.join()
    database.close()


def test_a_full_disk_refuses_and_keeps_the_rest(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/hilum.db")
    database.migrate()
    record = Record(database, "")
    record.receive(1)
    database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={_pages(c)}").scalar())
    acknowledged = 1
    with pytest.raises(RecordError, match="full") as refused:
        for film in range(2, 1000):
            record.receive(film)
            acknowledged += 1
    assert status_of(refused.value) == 0xA700
    assert len(record.instances.paths()) == acknowledged
    database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000").scalar())
    assert len(record.jobs.claim("reader", 1000, LEASE, NOW)) == acknowledged
    database.close()


def _pages(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


def test_a_server_that_restarts_is_found_again(postgres: Cluster) -> None:
    database = Database(postgres.fresh())
    database.migrate()
    record = Record(database, "")
    record.receive(1)
    postgres.disconnect_all()
    assert record.receive(1).outcome == "same"
    postgres.disconnect_all()
    assert len(record.worklist.rows(10)) == 1
    database.close()


def test_an_error_message_holds_no_patient(record: Record) -> None:
    def spoil(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO studies (study_uid) VALUES (:name)"), {"name": "Phantom^Chest"})

    with pytest.raises(RecordError) as refused:
        record.database.write(spoil)
    assert "Phantom" not in str(refused.value)
    assert "Phantom" not in str(refused.value.__cause__).partition("DETAIL")[0]
