"""The official `openai` client before a server on a real port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from api.app import create_app
from models.fake import FakeRunner
from storage import leases
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import Lane
from tests.contract.conftest import CONFIG
from tests.contract.support import serving, until
from tests.support import jobs
from tests.support.engine import answering
from workers.queues import WakeUps

PREFIX = "test:"
HELLO: Any = [{"role": "user", "content": "hello there"}]

#: Clients of servers with other limits: `serve(max_retries=2, chat_timeout=1)`.
Serve = Callable[..., OpenAI]


@pytest.fixture
def serve(database: Database, wake_ups: WakeUps) -> Iterator[Serve]:
    """Clients of servers with other limits. They try again as often as is said."""
    opened: list[Any] = []

    def make(retries: int = 0, seen: Any = None, **limits: Any) -> OpenAI:
        app = create_app(replace(CONFIG, **limits), database, wake_ups)
        server = serving(app)
        url = server.__enter__()
        hooks = {"response": [seen]} if seen else {}
        http = httpx2.Client(event_hooks=hooks)
        client = OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=retries, http_client=http)
        opened.extend([server, client])
        return client

    yield make
    for one in reversed(opened):
        one.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> OpenAI:
    return serve()


@pytest.fixture
def fake(database: Database, redis_url: str) -> Iterator[None]:
    with answering(database, redis_url, PREFIX, FakeRunner()):
        yield


def claimed(database: Database) -> ClaimedShard:
    """The shard of a completion that is asked for at this moment."""
    shard = until(lambda: next(iter(jobs.claim(database, lane=Lane.EXPRESS)), None))
    jobs.admit(database, shard)
    return shard


def fail(database: Database, shard: ClaimedShard, code: str) -> None:
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0, code)], jobs.LEASE)
