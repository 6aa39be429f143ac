"""A migration that locks several tables: all or none, and never in a deadlock with a writer."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import exc, text

from penstock.errors import Unavailable
from storage.database import Database, sqlstate
from storage.table_locks import LOCK_NOT_AVAILABLE, lock_tables
from tests.support.waiting import until

HELD = text("""
    SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE c.relname = :table AND l.granted AND l.mode = 'AccessExclusiveLock'
""")


def _locked(database: Database, table: str) -> bool:
    with database.begin() as conn:
        return bool(conn.execute(HELD, {"table": table}).scalar_one())


def test_all_tables_are_locked_until_the_transaction_ends(database: Database) -> None:
    with database.begin() as conn:
        lock_tables(conn, "batches", "shards", "files")
        assert all(_locked(database, table) for table in ("batches", "shards", "files"))
    assert not _locked(database, "batches")


def test_a_writer_in_the_way_goes_on_and_the_migration_gives_way(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.table_locks.PATIENCE", 3.0)  # long enough to be seen
    given_up: list[object] = []

    def migrate() -> None:
        try:
            with database.begin() as conn:
                lock_tables(conn, "batches", "shards")
        except Unavailable as error:
            given_up.append(sqlstate(error.__cause__))

    migration = threading.Thread(target=migrate)
    with database.begin() as conn:
        # Who finds a deadlock is its victim: so the writer looks at once.
        conn.execute(text("SET LOCAL deadlock_timeout = '1ms'"))
        conn.execute(text("LOCK TABLE shards IN ROW EXCLUSIVE MODE"))
        migration.start()
        until("the migration has the first table", lambda: _locked(database, "batches"))
        conn.execute(text("LOCK TABLE batches IN ROW EXCLUSIVE MODE"))
    migration.join(timeout=30)

    assert given_up == [LOCK_NOT_AVAILABLE]


def test_a_lock_of_a_moment_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.table_locks.PATIENCE", 30.0)
    with database.begin() as conn, database.begin() as other:
        other.execute(text("LOCK TABLE shards IN ROW EXCLUSIVE MODE"))
        threading.Timer(0.05, other.commit).start()
        lock_tables(conn, "batches", "shards")
        assert _locked(database, "shards")


def test_any_other_failure_is_not_hidden(database: Database) -> None:
    with pytest.raises(exc.ProgrammingError), database.begin() as conn:
        lock_tables(conn, "batches", "no_such_table")
