"""Several clients of one answer: who leaves it leaves it to the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest
from redis import Redis
from sqlalchemy import text
from websockets.sync.client import connect

from api.app import create_app
from storage import reading
from storage.database import Database
from storage.states import BatchStatus
from tests.contract.conftest import CONFIG
from tests.contract.support import serving
from tests.support import jobs
from tests.support.events import read_events
from tests.support.waiting import until
from workers.queues import WakeUps

QUESTION = {"messages": [{"role": "user", "content": "one"}], "stream": True}


@contextmanager
def completion(url: str) -> Iterator[None]:
    """Asks as OpenAI's clients do; no status comes before the first chunk."""
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=20)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION), headers)
        yield


@contextmanager
def talk(url: str) -> Iterator[None]:
    with connect(f"{url.replace('http', 'ws')}/ws/chat/a/b") as socket:
        socket.send("one")
        yield


def _begin(client: httpx2.Client, method: str, path: str, **body: object) -> str:
    """Reads the start of a stream, and leaves it. The id of its chat."""
    with client.stream(method, path, json=body or None) as answer:
        request_id: str = next(read_events(answer.iter_lines())).data["request_id"]
        return request_id


def _newest(database: Database) -> str | None:
    with database.begin() as conn:
        found: str | None = conn.scalar(text("SELECT max(id) FROM batches"))
    return found


def _status(database: Database, request_id: str) -> BatchStatus | None:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, request_id)
    return batch.status if batch else None


@pytest.mark.parametrize("ask", [completion, talk])
def test_a_follower_who_leaves_cancels_nothing_while_the_first_client_is_there(
    ask: Callable[[str], AbstractContextManager[None]],
    database: Database,
    wake_ups: WakeUps,
    redis_socket: Path,
) -> None:
    """Without a worker, so that nothing ends by itself."""
    app = create_app(replace(CONFIG, leave_grace=0.1), database, wake_ups)
    with (
        Redis(unix_socket_path=str(redis_socket)) as redis,
        serving(app) as url,
        httpx2.Client(base_url=url, timeout=20) as client,
        ask(url),
    ):
        until("it is stored", lambda: _newest(database) is not None)
        first = _newest(database)
        assert first is not None
        until("it is followed", lambda: redis.get(f"test:followers:{first}") == b"1")

        assert _begin(client, "GET", f"/chat/stream/{first}") == first
        until("the second one left", lambda: redis.get(f"test:followers:{first}") == b"1")
        # Left later, so that its grace ends later.
        alone = _begin(client, "POST", "/chat/stream", message="two")
        until("that is cancelled", lambda: _status(database, alone) is BatchStatus.CANCELLING)

        assert _status(database, first) is BatchStatus.QUEUED
