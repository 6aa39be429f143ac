"""The parts of a worker that answer chats, without its process: claim, engine, commit, publish."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from batching.engine import Engine
from batching.requests import EngineConfig
from models.runner import Runner
from storage.database import Database
from storage.states import Lane
from tests.support import jobs
from workers.committer import Committer
from workers.lanes import LaneSizes
from workers.lease import Leases
from workers.publisher import Publisher
from workers.shards import ShardRunner, WorkerIdentity


@contextmanager
def answering(database: Database, redis_url: str, prefix: str, runner: Runner) -> Iterator[None]:
    """Every chat that comes is answered by `runner`, and published as it comes where asked."""
    held = Leases()
    shards = ShardRunner(
        database=database,
        codec=runner.codec,
        info=runner.info,
        identity=WorkerIdentity("slot", "boot", jobs.MODEL, jobs.LEASE),
        held=held,
        sizes=LaneSizes(rows=64, express_rows=8),
    )
    defaults, info = EngineConfig(), runner.info
    config = EngineConfig(
        max_rows=info.max_rows or defaults.max_rows,
        step_tokens=info.step_tokens,
        kv_tokens=info.kv_tokens or defaults.kv_tokens,
    )
    engine = Engine(runner, config, on_admit=shards.on_admit)
    committer = Committer(database, lease_seconds=jobs.LEASE, on_lost=shards.lose)
    publisher = Publisher(redis_url, prefix)
    shards.attach(engine, committer)
    shards.publish = publisher.of
    stopping = threading.Event()

    def claim() -> None:
        while not stopping.wait(0.02):
            for lease in shards.claim(Lane.EXPRESS):
                shards.begin(lease)

    claiming = threading.Thread(target=claim)
    for part in (publisher, engine, committer, shards.admissions, claiming):
        part.start()
    try:
        yield
    finally:
        stopping.set()
        claiming.join()
        engine.stop()
        shards.admissions.stop()
        committer.stop()
        publisher.stop()
