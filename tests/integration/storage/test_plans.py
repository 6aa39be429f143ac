"""What runs all the time reads a few rows, also when the tables are long and whatever PostgreSQL
believes of them: its own counters of rows and index entries tell how many. The loss of an index
would show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Connection, text

from storage import (
    conversations,
    due,
    files,
    forgetting,
    leases,
    lifecycle,
    openai_batches,
    output,
    overview,
    reading,
    response_cache,
    retention,
    turns,
)
from storage.database import Database
from storage.forgetting import TimeToLive
from storage.records import ClaimedShard
from storage.response_cache import Bounds
from storage.states import Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.postgres import PostgresServer

#: Rows and index entries that one call may read of one table, however long that is.
MOST = 1_000
# Of a small table PostgreSQL rightly reads all. The job that ends has none of these: closing it
# reads all of its own shards.
OLD_SHARDS = text("""
    INSERT INTO shards (batch_id, model, lane, priority, state, remaining)
    SELECT id, model, lane, priority, 'done', 0 FROM batches, generate_series(1, 10000)
    WHERE id <> :ending
""")
OLD_CHATS = text("""
    INSERT INTO batches (id, owner, kind, model, lane, status, priority, params, metadata, total,
                         completed, finished_at)
    SELECT 'batch_0' || n, :owner, 'chat', :model, 'express', 'completed', 0, '{}', '{}', 1, 1,
           now()
    FROM generate_series(1, 20000) n
""")
ANSWERS = text("""
    INSERT INTO response_cache (digest, owner, batch_id, position)
    SELECT sha256(CAST(CAST(position AS text) AS bytea)), :owner, batch_id, position FROM results
""")
#: Turns of one conversation: one that may be claimed, and many that wait for it.
WAITING = text("""
    WITH talk AS (
        INSERT INTO conversations (owner, id) VALUES (:owner, 'talk')
    ), chats AS (
        INSERT INTO batches
            (id, owner, kind, model, lane, status, priority, params, metadata, total)
        SELECT 'chat_' || lpad(CAST(n AS text), 6, '0'), :owner, 'chat', :model, 'express',
               'queued', 0, '{}', '{}', 1
        FROM generate_series(1, 200) n
        RETURNING id
    ), turns AS (
        INSERT INTO messages (owner, conversation_id, batch_id, content, created_at, history, open)
        SELECT :owner, 'talk', id, 'hello', now() + make_interval(secs => row_number() OVER ()),
               10, true
        FROM chats ORDER BY id
    )
    INSERT INTO shards (batch_id, model, lane, owner, priority, state, remaining, due_at)
    SELECT id, :model, 'express', :owner, 0, 'ready', 1,
           CASE WHEN row_number() OVER (ORDER BY id) = 1 THEN now() ELSE 'infinity' END
    FROM chats
""")
SAID = text("""
    WITH old AS (
        INSERT INTO conversations (owner, id, updated_at)
        SELECT :owner, 'old ' || n, now() - interval '2h' FROM generate_series(1, 5000) n
        RETURNING owner, id, updated_at
    )
    INSERT INTO messages (owner, conversation_id, content, created_at, answer, answered_at)
    SELECT owner, id, 'hello', updated_at, 'hi', updated_at FROM old
""")
#: What PostgreSQL has counted. It never does by itself where a table has but a few rows.
STATISTICS = ["none", "stale", "fresh", "fresh but for batches"]
TABLES = frozenset(
    ("batches", "shards", "requests", "results", "response_cache", "messages", "conversations")
)
READS = text("""
    SELECT t.relname, t.seq_tup_read + sum(i.idx_tup_read) AS rows
    FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
    WHERE t.relname = ANY(:tables)
    GROUP BY t.relname, t.seq_tup_read
""")


@pytest.fixture(scope="module", params=STATISTICS)
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
            if request.param == "stale":
                conn.execute(text("ANALYZE"))
            conn.execute(OLD_SHARDS, {"ending": cancelled.id})
            conn.execute(OLD_CHATS, {"owner": jobs.OWNER, "model": jobs.MODEL})
            conn.execute(ANSWERS, {"owner": jobs.OWNER})
            conn.execute(WAITING, {"owner": jobs.OWNER, "model": jobs.MODEL})
            conn.execute(SAID, {"owner": jobs.OWNER})
            lifecycle.request_cancel(conn, jobs.OWNER, cancelled.id)
            if request.param == "fresh":
                conn.execute(text("ANALYZE"))
            if request.param == "fresh but for batches":
                conn.execute(text(f"ANALYZE {', '.join(TABLES - {'batches'})}"))
        yield database
        database.close()


def _reads(database: Database) -> dict[str, int]:
    with database.begin() as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as conn:
        return {row.relname: int(row.rows) for row in conn.execute(READS, {"tables": list(TABLES)})}


def _run(database: Database, work: Callable[[Connection], Any], most: int = MOST) -> dict[str, int]:
    """The rows that `work` read, of tables of which it read too many."""
    before = _reads(database)
    with database.begin() as conn:
        work(conn)
    after = _reads(database)
    read = {table: after[table] - before[table] for table in after}
    return {table: rows for table, rows in read.items() if rows > most}


def _claim(database: Database) -> ClaimedShard:
    (shard,) = jobs.claim(database)
    return shard


def _claim_one(conn: Connection, after: str = "") -> None:
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


def _find(conn: Connection) -> None:
    digests = [sha256(b"%d" % position).digest() for position in range(SHARD_SIZE)]
    found = response_cache.find(conn, digests, ttl=3600.0, owner=jobs.OWNER)
    assert len(found) == SHARD_SIZE


def _keep(conn: Connection) -> None:
    job = conn.execute(text("SELECT min(id) FROM batches")).scalar_one()
    outcomes = [replace(jobs.answer(n), digest=b"new %d" % n) for n in range(SHARD_SIZE)]
    response_cache.keep(conn, job, outcomes)


def _retain(conn: Connection) -> None:
    assert retention.delete_old(conn, 3600.0) == 0


def test_claiming_reads_few_rows(long_queue: Database) -> None:
    assert _run(long_queue, _claim_one) == {}
    assert _run(long_queue, lambda conn: _claim_one(conn, jobs.OWNER)) == {}


def test_what_a_worker_writes_reads_few_rows(long_queue: Database) -> None:
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
        "find answers": _find,
        "keep answers": _keep,
    }

    read = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(read.values()), read


def test_what_the_dispatcher_does_reads_few_rows(long_queue: Database) -> None:
    shard = _claim(long_queue)
    with long_queue.begin() as conn:
        leases.admit(conn, shard.id, shard.epoch, [shard.requests[0].position])
        conn.execute(
            text("UPDATE shards SET lease_until = now() - interval '1s' WHERE id = :id"),
            {"id": shard.id},
        )

    steps: dict[str, Callable[[Connection], Any]] = {
        "look": due.look,
        "reap": leases.reap,
        "extend_all": lambda conn: leases.extend_all(conn, jobs.LEASE),
        "release_slot": lambda conn: leases.release_slot(conn, "slot", "next boot"),
        "ready_lanes": lambda conn: reading.ready_lanes(conn, 16),
        "leased_rows": reading.leased_rows,
        "lane_depths": reading.lane_depths,
        "close_open": lambda conn: lifecycle.close_open(conn, 2),
        "expire_due": lifecycle.expire_due,
        "finalize": lifecycle.finalize,
        "retain": _retain,
        "any_waiting": openai_batches.any_waiting,
        "next_unread": openai_batches.next_unread,
        "next_uncounted": openai_batches.next_uncounted,
        "delete_expired": files.delete_expired,
        "forget answers": lambda conn: response_cache.delete_old(conn, Bounds(), limit=100),
        "settle": turns.settle,
        "forget": lambda conn: forgetting.delete_silent(conn, TimeToLive(86_400.0)),
    }

    read = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(read.values()), read


def test_what_clients_ask_reads_few_rows(long_queue: Database) -> None:
    with long_queue.begin() as conn:
        job = conn.execute(text("SELECT min(batch_id) FROM results")).scalar_one()

    steps: dict[str, Callable[[Connection], Any]] = {
        "progress": lambda conn: reading.get_batch(conn, jobs.OWNER, job),
        "settled": lambda conn: overview.settled(conn, [job]),
        "results": lambda conn: reading.results(conn, job, 640, 64),
        "details": lambda conn: reading.details(conn, job, 640, 64),
        "output": lambda conn: output.lines(conn, job, 640, 64 + 640, good=True),
        "errors": lambda conn: output.lines(conn, job, 640, 64 + 640, good=False),
        "cancel": lambda conn: lifecycle.request_cancel(conn, jobs.OWNER, job),
        "answers kept": response_cache.size,
    }

    read = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(read.values()), read


def _claim_turn(conn: Connection) -> list[ClaimedShard]:
    return leases.claim(
        conn, model=jobs.MODEL, lane=Lane.EXPRESS, slot="slot", boot_id="boot", lease=jobs.LEASE
    )


def test_turns_that_wait_cost_a_claim_nothing(long_queue: Database) -> None:
    few = 50
    assert _run(long_queue, _claim_turn, few) == {}
    assert _run(long_queue, _claim_turn, few) == {}  # nothing is ready now
    assert _run(long_queue, lambda conn: turns.end(conn, ["chat_000001"])) == {}
    assert _run(long_queue, _claim_turn, few) == {}

    steps: dict[str, Callable[[Connection], Any]] = {
        "histories": lambda conn: turns.histories(conn, ["chat_000002"]),
        "active": conversations.active_count,
        "turns": lambda conn: conversations.last_turns(conn, jobs.OWNER, "talk", 50),
    }

    read = {name: _run(long_queue, work) for name, work in steps.items()}
    assert not any(read.values()), read
    with long_queue.begin() as conn:
        leased = text("SELECT batch_id FROM shards WHERE lane = 'express' AND state = 'leased'")
        assert sorted(conn.execute(leased).scalars()) == ["chat_000001", "chat_000002"]


@pytest.mark.parametrize(
    ("index", "work"),
    [
        ("ix_shards_turn", _claim_one),
        ("ix_requests_shard_id", _claim_one),
        ("ix_shards_leased", leases.reap),
        ("ix_shards_batch_id", lifecycle.close_open),
        ("ix_batches_expires_at", lifecycle.expire_due),
        ("ix_batches_ending", lifecycle.finalize),
        ("ix_batches_finished_at", _retain),
        ("ix_response_cache_id", response_cache.size),
        ("ix_messages_open", turns.settle),
        ("ix_conversations_updated_at", conversations.active_count),
    ],
)
def test_the_loss_of_an_index_would_show(
    long_queue: Database, index: str, work: Callable[[Connection], Any]
) -> None:
    def without(conn: Connection) -> None:
        conn.execute(text(f"DROP INDEX {index}"))
        work(conn)
        conn.rollback()

    assert _run(long_queue, without) != {}
