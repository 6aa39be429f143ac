"""The API on a real port, before a real worker with the fake model that speaks word by word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from api.app import create_app
from api.dependencies import hash_key
from storage import reading
from storage.database import Database
from storage.states import BatchStatus
from tests.contract.conftest import CONFIG
from tests.contract.support import serving
from tests.support import jobs
from tests.support.postgres import PostgresServer
from tests.support.redis import flush
from tests.support.workers import TIMING, Processes
from workers.queues import WakeUps

SPEED = 10  # words a second: slow enough to leave in the middle


@dataclass
class Stack:
    """`url` answers without keys, `locked` to the key `secret` alone."""

    url: str
    locked: str
    database: Database
    processes: Processes
    environment: dict[str, str]

    def status(self, request_id: str) -> BatchStatus:
        with self.database.begin() as conn:
            batch = reading.get_batch(conn, jobs.OWNER, request_id)
        assert batch is not None
        return batch.status

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30)


@pytest.fixture(scope="package")
def stack(
    postgres_server: PostgresServer,
    redis_socket: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    flush(redis_socket)
    redis_url = f"redis+socket://{redis_socket}"
    with postgres_server.migrated_database() as database_url:
        environment = {
            "PENSTOCK_DATABASE__URL": database_url,
            "PENSTOCK_BROKER__URL": redis_url,
            "PENSTOCK_BROKER__KEY_PREFIX": "streams:",
            "PENSTOCK_MODEL__NAME": "fake",
            "PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": str(SPEED),
            "PENSTOCK_WORKER__SLOT": "streams-0",
            **TIMING,
        }
        processes = Processes(environment, tmp_path_factory.mktemp("logs"))
        database = Database(database_url)
        wake_ups = WakeUps(redis_url, "streams:")
        config = replace(CONFIG, socket_idle=3.0, own_names_only=True)
        locked = replace(config, key_hashes=(hash_key("secret"),), own_names_only=False)
        try:
            processes.start("worker")
            with (
                serving(create_app(config, database, wake_ups)) as url,
                serving(create_app(locked, database, wake_ups)) as other,
            ):
                yield Stack(url, other, database, processes, environment)
        finally:
            processes.end()
            wake_ups.close()
            database.close()


@pytest.fixture
def redis_url_kept(redis_socket: Path) -> str:
    """The stack's Redis, as it is: `redis_url` would empty it."""
    return f"redis+socket://{redis_socket}"
