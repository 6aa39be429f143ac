"""Leases are kept alive, and dropped when another owns them or nobody confirms them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from batching.engine import Engine
from batching.requests import EngineConfig
from models.fake import FakeRunner
from storage import fleet, reclaim
from storage.database import Database
from storage.states import Lane
from tests.support.postgres import PostgresServer
from tests.support.waiting import until
from tests.support.workers import Jobs
from workers.committer import Committer
from workers.heartbeat import Heartbeat, HeartbeatTiming
from workers.lanes import LaneSizes
from workers.lease import Lease, Leases
from workers.shards import ShardRunner, WorkerIdentity
from workers.watchdog import Watchdog

IDENTITY = WorkerIdentity(slot="test-0", boot_id="boot-1", model="fake", lease_seconds=5)
AWAY = "postgresql://nobody@127.0.0.1:1/nothing"


class Bench:
    """The parts of a worker around one slow shard, on a heartbeat of their own."""

    def __init__(self, database: Database, heart: Database) -> None:
        runner = FakeRunner(tokens_per_second=0.5)
        self.held = Leases()
        self.shards = ShardRunner(
            database=database,
            codec=runner.codec,
            info=runner.info,
            identity=IDENTITY,
            held=self.held,
            sizes=LaneSizes(rows=64, express_rows=8),
        )
        self.engine = Engine(runner, EngineConfig(max_wait=0), on_admit=self.shards.on_admit)
        self.committer = Committer(database, lease_seconds=5, on_lost=self.shards.lose)
        self.shards.attach(self.engine, self.committer)
        self.replaced: list[bool] = []
        self.heartbeat = Heartbeat(
            database=heart,
            identity=IDENTITY,
            held=self.held,
            runner=self.shards,
            timing=HeartbeatTiming(heartbeat=0.2, self_fence=0.5, check=0.05),
            stats=lambda: {"busy": True},
            on_replaced=lambda: self.replaced.append(True),
        )
        self.engine.start()
        self.committer.start()

    def claim(self) -> Lease:
        (lease,) = self.shards.claim(Lane.BULK)
        self.shards.begin(lease)
        return lease

    def stop(self) -> None:
        self.heartbeat.stop()
        self.engine.stop()
        self.committer.stop()


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    with database.begin() as conn:
        fleet.register(conn, "test-0", "boot-1", "fake", {})
    bench = Bench(database, database)
    yield bench
    bench.stop()


def test_a_heartbeat_extends_the_lease_and_shows_the_figures(
    jobs: Jobs, bench: Bench, database: Database
) -> None:
    jobs.post(3)
    bench.claim()
    with database.begin() as conn:
        query = text("SELECT lease_until FROM shards")
        before = conn.execute(query).scalar_one()
    bench.heartbeat.start()

    def extended() -> bool:
        with database.begin() as conn:
            return bool(conn.execute(query).scalar_one() > before)

    def shown() -> bool:
        with database.begin() as conn:
            (worker,) = fleet.workers(conn)
        return worker.stats == {"busy": True}

    until("the lease is extended", extended)
    until("the figures are shown", shown)


def test_a_shard_of_another_epoch_leaves_the_engine(
    jobs: Jobs, bench: Bench, database: Database
) -> None:
    jobs.post(3)
    lease = bench.claim()
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET epoch = epoch + 1"))
    bench.heartbeat.start()
    assert lease.wait(timeout=20)
    assert lease.lost
    until("the rows are gone", lambda: sum(bench.engine.stats().running.values()) == 0)
    assert bench.shards.stats() == {"lease_losses": 1, "repeats": 0}


def test_prompts_that_a_lost_lease_had_begun_are_counted_as_repeats(
    jobs: Jobs, bench: Bench, database: Database
) -> None:
    jobs.post(3)
    first = bench.claim()
    until("they run", lambda: bench.engine.stats().running["bulk"] == 3)
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET lease_until = now() - interval '1 second'"))
        assert reclaim.reap(conn) == 1
    bench.shards.lose(first)

    bench.claim()

    assert bench.shards.stats() == {"lease_losses": 1, "repeats": 3}


def test_work_that_nobody_confirms_is_dropped_by_the_workers_own_clock(
    jobs: Jobs, database: Database
) -> None:
    jobs.post(3)
    unreachable = Database(AWAY, connect_timeout=1)
    bench = Bench(database, heart=unreachable)
    lease = bench.claim()
    bench.heartbeat.start()
    assert lease.wait(timeout=20)
    assert (lease.lost, lease.returned) == (False, 3)
    bench.stop()
    unreachable.close()


def test_work_that_nobody_confirms_is_dropped_though_the_heartbeat_itself_hangs(
    jobs: Jobs, bench: Bench, postgres_server: PostgresServer
) -> None:
    jobs.post(3)
    lease = bench.claim()
    until("it runs", lambda: bench.engine.stats().running["bulk"] == 3)
    bench.heartbeat.start()
    watchdog = Watchdog(
        engine=bench.engine,
        limit=300,
        threads=[bench.engine.alive],
        fence=bench.heartbeat.fence_if_hung,
    )
    assert not lease.over

    with postgres_server.frozen():
        watchdog.start()
        assert lease.wait(timeout=20)

    assert (lease.lost, lease.returned) == (False, 3)
    assert watchdog.stop()


def test_a_shard_whose_claim_was_never_answered_is_given_back(
    jobs: Jobs, bench: Bench, database: Database
) -> None:
    jobs.post(3)
    lease = bench.claim()
    bench.held.discard(lease)  # as if the connection had broken in the commit of the claim
    bench.heartbeat.start()

    def ready() -> bool:
        with database.begin() as conn:
            return bool(conn.execute(text("SELECT state FROM shards")).scalar_one() == "ready")

    until("it is ready again", ready)


def test_a_worker_whose_slot_was_taken_is_told(bench: Bench, database: Database) -> None:
    with database.begin() as conn:
        fleet.register(conn, "test-0", "boot-2", "fake", {})
    bench.heartbeat.start()
    until("it is told", lambda: bool(bench.replaced))
