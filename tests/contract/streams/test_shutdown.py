"""A process that is told to end lets its streams go, cancels nothing, and another one goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from api.server import GRACE
from storage.database import Database
from tests.contract.test_server import server
from tests.support import jobs
from tests.support.events import Event, read_events


def _begin(answer: httpx2.Response) -> tuple[Event, Iterator[Event]]:
    stream = read_events(answer.iter_lines())
    return next(stream), stream


def test_open_streams_end_at_once_and_their_chats_go_on(
    database: Database, database_url: str, redis_url: str
) -> None:
    job = jobs.store(database, 3).id
    with (
        server(database_url, redis_url) as (process, url),
        httpx2.Client(base_url=url, timeout=20) as client,
        client.stream("POST", "/chat/stream", json={"message": "hello"}) as chat,
        client.stream("GET", f"/batch-result/{job}/events") as events,
        connect(f"{url.replace('http', 'ws')}/ws/chat/a/b") as socket,
    ):
        start, rest = _begin(chat)
        progress, more = _begin(events)
        socket.send("hello")
        asked = socket.recv(timeout=20)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert (list(rest), list(more)) == ([], [])
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - began < GRACE

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert progress.name == "progress"
    assert "start" in str(asked)
    with database.begin() as conn:
        status = conn.exec_driver_sql("SELECT DISTINCT status FROM batches").scalars().all()
    assert list(status) == ["queued"]
    with server(database_url, redis_url) as (_, url):
        jobs.run_all(database)
        path = f"{url}/chat/stream/{start.data['request_id']}"
        with httpx2.stream("GET", path, headers={"Last-Event-ID": start.id or ""}) as answer:
            chunk, end = list(read_events(answer.iter_lines()))
    assert (chunk.data["content"], end.type) == ("answer 0", "end")
