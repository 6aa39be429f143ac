"""The dispatcher's clock, tick by tick, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from storage import fleet, lifecycle, reading
from storage.database import Database
from storage.forgetting import TimeToLive
from storage.records import Batch
from storage.states import BatchStatus, Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.talk import said, say
from tests.support.waiting import until
from workers.dispatcher import Dispatcher, DispatcherTiming
from workers.queues import WakeUps

HOUR = 3600.0
#: Without an interval, there is time for one portion of everything.
TIMING = DispatcherTiming(
    interval=0.0, reap_interval=5.0, retention=HOUR, lease=jobs.LEASE, gap=10.0
)


@pytest.fixture
def wake_ups(redis_url: str) -> Iterator[WakeUps]:
    wake_ups = WakeUps(redis_url, "penstock:")
    yield wake_ups
    wake_ups.close()


@pytest.fixture
def dispatcher(database: Database, wake_ups: WakeUps) -> Dispatcher:
    return Dispatcher(database, wake_ups, TIMING)


def _left(database: Database) -> int:
    with database.begin() as conn:
        return int(conn.execute(text("SELECT count(*) FROM batches")).scalar_one())


def _get(database: Database, batch_id: str) -> Batch:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, batch_id)
    assert batch is not None
    return batch


def test_retention_goes_on_at_the_next_tick_until_nothing_old_is_left(
    database: Database, dispatcher: Dispatcher
) -> None:
    for _ in range(120):
        jobs.store(database, 1)
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.finalize(conn)
        conn.execute(text("UPDATE batches SET finished_at = now() - interval '2h'"))
    kept = jobs.store(database, 1)

    left = []
    for _ in range(3):
        dispatcher.tick()
        left.append(_left(database))

    assert left == [71, 21, 1]
    with database.begin() as conn:
        assert conn.execute(text("SELECT id FROM batches")).scalar_one() == kept.id


def test_what_caches_keep_too_long_goes_tick_by_tick(
    database: Database, dispatcher: Dispatcher
) -> None:
    with database.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO client_cache (owner, key, value, bytes, expires_at)"
                " SELECT 'o', CAST(n AS text), '1', 1, now() + make_interval(hours => n - 1500)"
                " FROM generate_series(1, 1501) n"
            )
        )
        conn.execute(
            text(
                "INSERT INTO response_cache (digest, owner, batch_id, position, created_at)"
                " SELECT CAST(CAST(n AS text) AS bytea), 'o', 'b', n, now() - interval '2 days'"
                " FROM generate_series(1, 1500) n"
            )
        )

    left = []
    for _ in range(3):
        dispatcher.tick()
        with database.begin() as conn:
            left.append(
                tuple(
                    conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                    for table in ("client_cache", "response_cache")
                )
            )

    assert left == [(501, 500), (1, 0), (1, 0)]


def test_a_large_job_is_closed_tick_by_tick(database: Database, dispatcher: Dispatcher) -> None:
    batch = jobs.store(database, 250 * SHARD_SIZE)
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)

    dispatcher.tick()
    after_first = _get(database, batch.id)
    dispatcher.tick()
    ended = _get(database, batch.id)

    assert (after_first.status, ended.status) == (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    assert 0 < after_first.failed < ended.failed == 250 * SHARD_SIZE


def test_workers_that_hold_enough_are_not_woken(
    database: Database, dispatcher: Dispatcher, wake_ups: WakeUps
) -> None:
    def depth() -> int:
        return wake_ups.depth(jobs.MODEL, "bulk")

    jobs.store(database, 5 * SHARD_SIZE)
    with database.begin() as conn:
        holds = {"holds": {"bulk": 2 * SHARD_SIZE, "express": 4}}
        fleet.register(conn, "slot", "boot", jobs.MODEL, holds)
    first, second = jobs.claim(database, limit=2)
    assert len(first.requests) == len(second.requests) == SHARD_SIZE
    before = depth()

    dispatcher.tick()  # nothing: what it sent would be counted below
    jobs.admit(database, first)
    jobs.commit(database, first)
    dispatcher.tick()

    until("room for one shard is told twice", lambda: depth() == before + 2)


def test_a_tick_forgets_silent_conversations_and_lets_waiting_turns_go_on(
    database: Database, wake_ups: WakeUps
) -> None:
    brief = replace(TIMING, ttl=TimeToLive(2 * HOUR, {"ann": HOUR / 2}))
    for owner in ("ann", "bob"):
        say(database, "talk", "hello", owner=owner)
        jobs.run_all(database)
        jobs.end(database)
    say(database, "open", "one")
    _, second = say(database, "open", "two")
    with database.begin() as conn:
        conn.execute(
            text("UPDATE conversations SET updated_at = now() - interval '1h' WHERE id = 'talk'")
        )
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    jobs.admit(database, shard)
    jobs.commit(database, shard)

    Dispatcher(database, wake_ups, brief).tick()

    assert said(database, "talk", owner="ann") == []
    assert said(database, "talk", owner="bob") != []
    (following,) = jobs.claim(database, lane=Lane.EXPRESS)
    assert following.batch_id == second.id
