"""The dispatcher's clock, tick by tick, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from storage import fleet, lifecycle, reading
from storage.database import Database
from storage.records import Batch
from storage.states import BatchStatus
from storage.tables import SHARD_SIZE
from tests.support import jobs
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
