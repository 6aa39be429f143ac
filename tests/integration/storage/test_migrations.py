"""The migrations arrive at `tables.py`, whoever runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine

from storage import migrate, reading
from storage.database import Database, sqlalchemy_url
from storage.service_tables import metadata
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
# What compare_metadata does not look at: checks, foreign keys' actions, index definitions.
CATALOG = """
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'column', table_name, column_name,
           concat_ws(' ', data_type, is_nullable, column_default, collation_name, is_identity)
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'options', relname, '', reloptions::text
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
#: The migration has one table, and asks for the next.
ASKING = """
    SELECT count(*) FROM pg_locks
    WHERE relation = 'batches'::regclass AND mode = 'AccessExclusiveLock' AND granted
"""
#: A job with one result, as the first release stored it.
FIRST_RELEASE = (
    "INSERT INTO batches (id, owner, kind, model, lane, status, priority, params, metadata, total)"
    " VALUES ('b', 'o', 'batch', 'm', 'bulk', 'queued', 0, '{\"max_tokens\": 8}', '{}', 1)",
    "INSERT INTO shards (id, batch_id, model, lane, priority, state, remaining)"
    " OVERRIDING SYSTEM VALUE VALUES (1, 'b', 'm', 'bulk', 0, 'done', 0)",
    "INSERT INTO requests (batch_id, position, shard_id, state) VALUES ('b', 0, 1, 'done')",
    "INSERT INTO results (batch_id, position, text, finish_reason) VALUES ('b', 0, 'kept', 'stop')",
)


def _catalog(url: str) -> set[tuple[str, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(CATALOG)
        return {row for row in cursor.fetchall() if row[1] != "alembic_version"}


def test_the_migrated_schema_equals_the_metadata(
    postgres_server: PostgresServer, database_url: str
) -> None:
    migrated = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    with postgres_server.empty_database() as url:
        metadata.create_all(create_engine(sqlalchemy_url(url), poolclass=NullPool))
        assert _catalog(database_url) == _catalog(url)


def test_alembic_needs_no_ini_file_and_two_at_once_do_not_race(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.empty_database() as url:
        assert migrate.current(url) is None

        running = [_alembic(url, "upgrade", "head") for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0] for process in running]

        assert [process.returncode for process in running] == [0, 0], outputs
        assert migrate.current(url) == migrate.head()


def test_migrating_twice_in_process_changes_nothing(database_url: str) -> None:
    before = _catalog(database_url)

    migrate.upgrade(database_url)

    assert _catalog(database_url) == before


def test_alembic_without_a_url_says_what_to_set() -> None:
    process = _alembic(None, "upgrade", "head")

    output = process.communicate(timeout=60)[0]

    assert process.returncode != 0
    assert "Set PENSTOCK_DATABASE__URL" in output
    assert "Traceback" not in output


def _migrate(url: str, *step: str) -> None:
    with _alembic(url, *step) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output


def test_results_of_the_first_release_survive_the_second_and_the_way_back(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.empty_database() as url:
        _migrate(url, "upgrade", "0001")
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            for statement in FIRST_RELEASE:
                cursor.execute(statement)
            connection.commit()

        for step in (("upgrade", "head"), ("downgrade", "0001"), ("upgrade", "head")):
            _migrate(url, *step)

        with closing(Database(url)) as database, database.begin() as conn:
            (row,) = reading.results(conn, "b", 0, 9)
            assert (row.text, row.finish_reason) == ("kept", "stop")
            assert reading.details(conn, "b", 0, 9) == {}
            batch = reading.get_batch(conn, "o", "b")
            assert batch is not None and not batch.detailed


def test_migrating_waits_for_a_long_transaction_and_holds_nobody_else_up(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.empty_database() as url:
        _migrate(url, "upgrade", "0002")
        with closing(psycopg2.connect(url)) as long, closing(psycopg2.connect(url)) as other:
            _execute(long, "SELECT count(*) FROM shards")  # and its transaction goes on
            migrating = _alembic(url, "upgrade", "head")
            _execute(other, "SET lock_timeout = '5s'")
            until("it waits for the long one", lambda: _execute(other, ASKING) > 0)

            assert _execute(other, "SELECT count(*) FROM shards") == 0
            other.commit()
            long.commit()
            output = migrating.communicate(timeout=60)[0]

        assert migrating.returncode == 0, output
        assert migrate.current(url) == migrate.head()


def _execute(connection: Any, statement: str) -> int:
    """The number that a query answers; the transaction goes on."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0]) if cursor.description else 0


def test_the_first_migration_can_be_undone(postgres_server: PostgresServer) -> None:
    with postgres_server.empty_database() as url:
        migrate.upgrade(url)

        process = _alembic(url, "downgrade", "base")

        output = process.communicate(timeout=60)[0]

        assert process.returncode == 0, output
        assert _catalog(url) == set()


def _alembic(url: str | None, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PENSTOCK_")}
    if url is not None:
        environment["PENSTOCK_DATABASE__URL"] = url
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
