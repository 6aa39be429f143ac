"""PostgreSQL goes away, or hangs, while the engine is full: it pauses with a bounded number of
outcomes in memory, goes on when PostgreSQL is back, and loses and repeats none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from batching.engine import Engine
from batching.requests import EngineConfig
from models.fake import FakeRunner
from storage import reading
from storage.database import Database
from storage.states import BatchStatus
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.postgres import PostgresServer, postgres
from tests.support.waiting import until
from tests.support.workers import Jobs
from workers.committer import Committer
from workers.lanes import LaneShares, LaneSizes
from workers.lease import Leases
from workers.poller import Poller
from workers.shards import ShardRunner, WorkerIdentity

PROMPTS = 600
SIZES = LaneSizes(rows=32, express_rows=4)
#: Rows that run, those that may still enter since their admission is written, and what had ended
#: already and waited for its commit.
BOUND = SIZES.rows + SIZES.admit_ahead + SHARD_SIZE


@dataclass(frozen=True)
class Parts:
    """Those of a worker's process, without Celery."""

    engine: Engine
    held: Leases

    @property
    def unstored(self) -> int:
        """Outcomes that are in memory alone."""
        return sum(lease.open_count - lease.unended for lease in self.held.all())

    def stands_still(self) -> bool:
        """Nothing runs and something waits; or the engine itself waits for the database."""
        stats = self.engine.stats()
        waits = stats.running["bulk"] == 0 and stats.waiting["bulk"] > 0
        return waits or stats.last_step_age > 1


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that nobody else misses."""
    with postgres() as server:
        yield server


@pytest.fixture
def database(own_server: PostgresServer) -> Iterator[Database]:
    with own_server.migrated_database() as url:
        opened = Database(url)
        yield opened
        opened.close()


@pytest.fixture
def parts(database: Database) -> Iterator[Parts]:
    runner = FakeRunner(tokens_per_second=50)
    held = Leases()
    shards = ShardRunner(
        database=database,
        codec=runner.codec,
        info=runner.info,
        identity=WorkerIdentity("slot", "boot", jobs.MODEL, lease_seconds=60),
        held=held,
        sizes=SIZES,
    )
    config = EngineConfig(max_rows=SIZES.rows, express_rows=SIZES.express_rows)
    engine = Engine(runner, config, on_admit=shards.on_admit)
    committer = Committer(database, lease_seconds=60, on_lost=shards.lose)
    shards.attach(engine, committer)
    poller = Poller(shards, LaneShares(SIZES), 0.2, wake=lambda: None)
    started = (engine, committer, shards.admissions, poller)
    for part in started:
        part.start()
    yield Parts(engine, held)
    shards.drain()
    for part in reversed(started):
        part.stop()


@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_an_outage_pauses_the_engine_and_loses_and_repeats_nothing(
    outage: str, own_server: PostgresServer, database: Database, parts: Parts
) -> None:
    batch, posted = jobs.store(database, PROMPTS), Jobs(database, jobs.OWNER)
    until("the job runs", lambda: posted.done(batch.id) > SIZES.rows)

    with own_server.stopped() if outage == "stopped" else own_server.frozen():
        until("the engine stands still", parts.stands_still)
        in_memory = parts.unstored
        steps = parts.engine.stats().steps
        until("a while passes", lambda: parts.engine.stats().oldest_waiting["bulk"] > 3)
        assert parts.engine.stats().steps == steps
        assert parts.unstored == in_memory <= BOUND

    until("every prompt has its outcome", lambda: posted.done(batch.id) == PROMPTS)
    with database.begin() as conn:
        attempts = text("SELECT count(*), sum(attempts) FROM requests WHERE state = 'done'")
        assert conn.execute(attempts).one() == (PROMPTS, PROMPTS)
        rows = reading.results(conn, batch.id, 0, PROMPTS)
        ended = reading.get_batch(conn, jobs.OWNER, batch.id)
    assert [row.text for row in rows] == [f"echo: prompt {n}" for n in range(PROMPTS)]
    assert ended is not None and ended.status in (BatchStatus.FINALIZING, BatchStatus.COMPLETED)
    until("nothing stays in memory", lambda: parts.unstored == 0)
