"""The dispatcher's clock, tick by tick, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from storage import lifecycle
from storage.database import Database
from tests.support import jobs
from workers.dispatcher import Dispatcher, DispatcherTiming
from workers.queues import WakeUps

HOUR = 3600.0
TIMING = DispatcherTiming(
    interval=1.0, reap_interval=5.0, retention=HOUR, lease=jobs.LEASE, gap=10.0
)


@pytest.fixture
def dispatcher(database: Database, redis_url: str) -> Iterator[Dispatcher]:
    wake_ups = WakeUps(redis_url, "penstock:")
    yield Dispatcher(database, wake_ups, TIMING)
    wake_ups.close()


def _left(database: Database) -> int:
    with database.begin() as conn:
        return int(conn.execute(text("SELECT count(*) FROM batches")).scalar_one())


def test_retention_goes_on_at_the_next_tick_until_nothing_old_is_left(
    database: Database, dispatcher: Dispatcher
) -> None:
    for _ in range(160):
        jobs.store(database, 1)
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.finalize(conn)
        conn.execute(text("UPDATE batches SET finished_at = now() - interval '2h'"))
    kept = jobs.store(database, 1)

    dispatcher.tick()
    after_first = _left(database)
    dispatcher.tick()

    assert 1 < after_first < 161, "a tick is bounded, and not too small"
    assert _left(database) == 1
    with database.begin() as conn:
        assert conn.execute(text("SELECT id FROM batches")).scalar_one() == kept.id
