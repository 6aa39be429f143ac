"""What the contract tests share: a client's short ways, a worker made of storage's own SQL, and a
server on a real port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import server
from storage import lifecycle
from storage.database import Database
from tests.support import jobs

T = TypeVar("T")


def post(client: TestClient, *messages: object, **fields: object) -> str:
    answer = client.post("/batch-generate", json={"messages": list(messages), **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["request_id"])


def check_shape(answer: httpx2.Response) -> dict[str, object]:
    """The one error body, whatever the error."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"]
    body = answer.json()
    assert body.keys() >= {"type", "title", "status", "detail", "instance", "error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["status"] == answer.status_code
    assert body["error"]["message"] == body["detail"]
    for leak in ("Traceback", "/site-packages", ".py", "SELECT", "INSERT", "psycopg2"):
        assert leak not in answer.text
    error: dict[str, object] = body["error"]
    return error


@contextmanager
def working(database: Database) -> Iterator[None]:
    """A worker that answers whatever comes, and finalizes."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.02):
            settle(database)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def settle(database: Database) -> None:
    """Answer and close all that is open, as a worker and the dispatcher would."""
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.close_open(conn)
        lifecycle.finalize(conn)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    listener = server.bind("127.0.0.1", 0)
    running = uvicorn.Server(
        uvicorn.Config(app, http="h11", log_config=None, lifespan="on", timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


def until(look: Callable[[], T | None], seconds: float = 20) -> T:
    """The first thing that `look` brings, within a limit."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        pause.wait(0.02)
    raise AssertionError("it did not come in time")
