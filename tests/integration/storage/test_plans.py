"""What runs all the time reads by index, also when the queue is long: PostgreSQL's own counters
of sequential scans stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from storage import leases, lifecycle, overview, reading
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.postgres import PostgresServer

# Of a small table PostgreSQL rightly reads all.
OLD_SHARDS = text("""
    INSERT INTO shards (batch_id, model, lane, priority, state, remaining)
    SELECT id, model, lane, priority, 'done', 0 FROM batches, generate_series(1, 7000)
""")
SCANS = text("""
    SELECT relname, seq_scan FROM pg_stat_user_tables
    WHERE relname IN ('shards', 'requests', 'results')
""")


@pytest.fixture(scope="module", params=["before ANALYZE", "stale ANALYZE", "after ANALYZE"])
def long_queue(
    postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """Finished jobs, a cancelled one, and a long backlog, on one connection."""
    with postgres_server.migrated_database() as url:
        database = Database(url, pool_size=1)
        jobs.store(database, 100 * SHARD_SIZE)
        jobs.run_all(database)
        cancelled = jobs.store(database, 100 * SHARD_SIZE)
        jobs.store(database, 300 * SHARD_SIZE)
        with database.begin() as conn:
            if request.param == "stale ANALYZE":
                conn.execute(text("ANALYZE"))
            conn.execute(OLD_SHARDS)
            lifecycle.request_cancel(conn, jobs.OWNER, cancelled.id)
            if request.param == "after ANALYZE":
                conn.execute(text("ANALYZE"))
        yield database
        database.close()


def _scans(database: Database) -> dict[str, int]:
    with database.begin() as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as conn:
        return {row.relname: row.seq_scan for row in conn.execute(SCANS)}


def _run(database: Database, work: Callable[[Connection], Any]) -> dict[str, int]:
    """The sequential scans that `work` made."""
    before = _scans(database)
    with database.begin() as conn:
        work(conn)
    after = _scans(database)
    return {table: after[table] - before[table] for table in after if after[table] > before[table]}


def _claim(database: Database) -> ClaimedShard:
    (shard,) = jobs.claim(database)
    return shard


def test_claiming_reads_by_index(long_queue: Database) -> None:
    def claim(conn: Connection, after: str = "") -> None:
        claimed = leases.claim(
            conn,
            model=jobs.MODEL,
            lane=Lane.BULK,
            slot="slot",
            boot_id="boot",
            lease=jobs.LEASE,
            after=after,
        )
        assert len(claimed) == 1

    assert _run(long_queue, claim) == {}
    assert _run(long_queue, lambda conn: claim(conn, jobs.OWNER)) == {}


def test_what_a_worker_writes_reads_by_index(long_queue: Database) -> None:
    shard = _claim(long_queue)
    positions = [request.position for request in shard.requests]
    outcomes = [jobs.answer(position) for position in positions[:50]]
    named = [(shard.id, shard.epoch)]

    steps: dict[str, Callable[[Connection], Any]] = {
        "admit": lambda conn: leases.admit(conn, shard.id, shard.epoch, positions),
        "heartbeat": lambda conn: leases.heartbeat(conn, named, jobs.LEASE),
        "held": lambda conn: leases.held(conn, named),
        "commit": lambda conn: leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE),
        "release": lambda conn: leases.release(conn, shard.id, shard.epoch),
    }

    scans = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(scans.values()), scans


def test_what_the_dispatcher_does_reads_by_index(long_queue: Database) -> None:
    shard = _claim(long_queue)
    with long_queue.begin() as conn:
        leases.admit(conn, shard.id, shard.epoch, [shard.requests[0].position])
        conn.execute(
            text("UPDATE shards SET lease_until = now() - interval '1s' WHERE id = :id"),
            {"id": shard.id},
        )

    steps: dict[str, Callable[[Connection], Any]] = {
        "reap": leases.reap,
        "extend_all": lambda conn: leases.extend_all(conn, jobs.LEASE),
        "release_slot": lambda conn: leases.release_slot(conn, "slot", "next boot"),
        "ready_lanes": lambda conn: reading.ready_lanes(conn, 16),
        "lane_depths": reading.lane_depths,
        "close_open": lambda conn: lifecycle.close_open(conn, 2),
        "expire_due": lifecycle.expire_due,
        "finalize": lifecycle.finalize,
    }

    scans = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(scans.values()), scans


def test_reading_a_page_of_results_reads_by_index(long_queue: Database) -> None:
    with long_queue.begin() as conn:
        batch = overview.list_jobs(conn, jobs.OWNER, 99)[-1]

    assert _run(long_queue, lambda conn: reading.results(conn, batch.id, 640, 64)) == {}
