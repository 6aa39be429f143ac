"""Migrations under a service that runs: from every earlier revision, with rows in every state, and
with writers of the first release that go on. What `storage/migrations/README.md` promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from storage import leases, lifecycle, migrate, reading
from storage.database import Database
from storage.records import Batch
from storage.service_tables import metadata
from tests.support import first_release, jobs
from tests.support.ledger import check_consistent, check_finished, read_ledger
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
SCRIPTS = ScriptDirectory.from_config(Config(toml_file=str(ROOT / "pyproject.toml")))
EARLIER = [script.revision for script in SCRIPTS.walk_revisions() if not script.is_head]
#: What follows these takes locks that readers do not mind.
LETS_READERS_BE = {"0009"}
OLD_TABLES = "batches, shards, requests, results, conversations, messages, workers"
WAITS_FOR_LOCK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
#: How today's code ends what the first release began.
ENDS = {
    "queued": ("completed", 2, 0),
    "running": ("completed", 5, 1),
    "all done": ("completed", 1, 1),
    "expiring": ("expired", 1, 3),
    "cancelling": ("cancelled", 0, 3),
    "completed": ("completed", 2, 0),
    "failed": ("failed", 0, 2),
    "cancelled": ("cancelled", 1, 1),
    "expired": ("expired", 1, 1),
}


@pytest.fixture(params=EARLIER)
def old_database(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of an earlier revision, with jobs in every state."""
    with postgres_server.empty_database() as url:
        with _alembic(url, "upgrade", request.param) as process:
            output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
        first_release.store_every_state(url)
        yield url


@contextmanager
def _reader(url: str) -> Iterator[None]:
    """A long transaction that has read every table; as long as it lives, none can be altered."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {OLD_TABLES} IN ACCESS SHARE MODE")
        yield


@pytest.mark.parametrize(
    "old_database", [one for one in EARLIER if one not in LETS_READERS_BE], indirect=True
)
def test_writers_go_on_while_a_migration_waits_for_a_long_reader(old_database: str) -> None:
    with first_release.writing(old_database) as writer:
        with _reader(old_database):
            process = _alembic(old_database, "upgrade", "head")
            until("the migration waits", lambda: _waiting(old_database) > 0)
            seen = len(writer.finished)
            until("writers pass it", lambda: _passed(writer, seen))
            assert process.poll() is None, "the reader held it up, and nobody else"
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
        after = len(writer.finished)
        until("writers go on", lambda: _passed(writer, after))

    assert writer.failures == []
    assert migrate.current(old_database) == migrate.head()
    with closing(Database(old_database)) as database:
        kept = _statuses(database)
    assert {kept[job] for job in writer.finished} == {("completed", 1, 0)}


def test_todays_code_reads_what_the_first_release_stored_and_ends_it(old_database: str) -> None:
    with _alembic(old_database, "upgrade", "head") as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output

    with closing(Database(old_database)) as database:
        for job, (status, _, _) in first_release.JOBS.items():
            assert _get(database, job).status == status
            _check_results(database, job)
        _end_all(database)
        assert _statuses(database) == ENDS
        for job in first_release.JOBS:
            _check_results(database, job)
        with database.begin() as conn:
            ledger = read_ledger(conn)
            check_consistent(ledger)
            check_finished(ledger)
            lifecycle.retry_failed(conn, jobs.OWNER, "failed")
        assert jobs.run_all(database) == 2


def test_the_rows_of_every_state_are_all_that_there_are() -> None:
    states = {state for _, _, shards in first_release.JOBS.values() for state, _ in shards}
    status = {status for status, _, _ in first_release.JOBS.values()}

    assert states | status | set(first_release.STATES.values()) | {"validating"} == {
        value
        for table, column in (("batches", "status"), ("shards", "state"), ("requests", "state"))
        for value in _allowed(table, column)
    }


def _allowed(table: str, column: str) -> list[str]:
    """The values that a table's check lets through."""
    (check,) = (
        constraint
        for constraint in metadata.tables[table].constraints
        if str(constraint.name) == f"ck_{table}_{column}"
    )
    return str(check.sqltext).split("'")[1::2]  # type: ignore[attr-defined]


def _end_all(database: Database) -> None:
    """What workers and dispatcher do."""
    with database.begin() as conn:
        assert leases.reap(conn) == 1
        while lifecycle.close_open(conn):
            pass
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.finalize(conn)


def _check_results(database: Database, job: str) -> None:
    """Outcomes of the first release are what they were."""
    letters = "".join(requests for _, requests in first_release.JOBS[job][2])
    with database.begin() as conn:
        rows = {row.position: row for row in reading.results(conn, job, 0, 99)}
        assert reading.details(conn, job, 0, 99) == {}
    for position, letter in enumerate(letters):
        if letter == "d":
            assert (rows[position].text, rows[position].finish_reason) == ("kept", "stop")
        elif letter == "f":
            assert rows[position].error_message == "It was kept."


def _get(database: Database, job: str) -> Batch:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, job)
    assert batch is not None
    return batch


def _statuses(database: Database) -> dict[str, tuple[str, int, int]]:
    with database.begin() as conn:
        rows = conn.execute(text("SELECT id, status, completed, failed FROM batches"))
        return {row.id: (row.status, row.completed, row.failed) for row in rows}


def _waiting(url: str) -> int:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(WAITS_FOR_LOCK)
        return int(cursor.fetchone()[0])


def _passed(writer: first_release.Writer, seen: int) -> bool:
    assert writer.failures == []
    return len(writer.finished) > seen + 2


def _alembic(url: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PENSTOCK_")}
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment | {"PENSTOCK_DATABASE__URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
