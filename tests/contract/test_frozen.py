"""PostgreSQL that hangs, or has no connection left: bounded answers, and all is well afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx2
import psycopg2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from storage.database import Database
from tests.contract.conftest import CONFIG
from tests.contract.support import check_shape
from tests.support.postgres import PostgresServer, postgres
from workers.queues import WakeUps

#: Seconds: a post's own limit is 30, any other's 10, and a machine may be slow.
POST_LIMIT, READ_LIMIT = 45.0, 20.0
POOL = 5
REQUESTS: tuple[tuple[str, str, dict[str, object] | None], ...] = (
    ("POST", "/batch-generate", {"messages": ["a"]}),
    ("POST", "/chat", {"message": "a"}),
    ("GET", "/batch-generate", None),
    ("GET", "/stats", None),
)


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that nobody else misses."""
    with postgres() as server:
        yield server


@pytest.fixture
def client(own_server: PostgresServer, wake_ups: WakeUps) -> Iterator[TestClient]:
    with own_server.migrated_database() as url:
        database = Database(url, pool_size=POOL)
        with ExitStack() as all_open:  # so that what hangs is the pool's, and no new connection
            for _ in range(POOL):
                all_open.enter_context(database.begin())
        with TestClient(create_app(CONFIG, database, wake_ups)) as opened:
            yield opened
        database.close()


@pytest.mark.slow
def test_a_database_that_hangs_is_503_in_bounded_time_and_then_all_is_well(
    own_server: PostgresServer, client: TestClient
) -> None:
    def ask(request: tuple[str, str, dict[str, object] | None]) -> tuple[httpx2.Response, float]:
        method, path, body = request
        began = time.monotonic()
        return client.request(method, path, json=body), time.monotonic() - began

    with own_server.frozen(), ThreadPoolExecutor(len(REQUESTS)) as pool:
        asked = pool.map(ask, REQUESTS)
        ready = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
        answers = list(asked)

    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "no answer")
    assert ready.json()["checks"]["broker"] == "ok"
    for (method, *_), (answer, seconds) in zip(REQUESTS, answers, strict=True):
        _check_unavailable(answer)
        assert seconds < (POST_LIMIT if method == "POST" else READ_LIMIT)
    assert client.post("/batch-generate", json={"messages": ["b"]}).status_code == 202
    assert client.get("/readyz").json()["checks"]["database"] == "ok"


def test_a_database_without_a_free_connection_is_503_and_then_all_is_well(
    own_server: PostgresServer, client: TestClient
) -> None:
    with ExitStack() as taken:
        _take_all_connections(own_server, taken)
        answers = [client.request(method, path, json=body) for method, path, body in REQUESTS]
        ready = client.get("/readyz")

    for answer in answers:
        _check_unavailable(answer)
    assert ready.json()["checks"]["database"] == "no answer"
    assert client.post("/batch-generate", json={"messages": ["b"]}).status_code == 202


def test_a_database_that_restarts_is_503_meanwhile_and_then_all_is_well(
    own_server: PostgresServer, client: TestClient
) -> None:
    with own_server.stopped():
        answers = [client.request(method, path, json=body) for method, path, body in REQUESTS]
        ready = client.get("/readyz")

    for answer in answers:
        _check_unavailable(answer)
    assert ready.json()["checks"]["database"] == "no answer"
    assert client.post("/batch-generate", json={"messages": ["b"]}).status_code == 202


def _take_all_connections(server: PostgresServer, taken: ExitStack) -> None:
    """Until the application has none: its own tasks connect anew whenever they are cut off."""
    own = taken.enter_context(closing(psycopg2.connect(server.url("postgres"))))
    own.autocommit = True
    cut = True
    while cut:
        with own.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'penstock'"
            )
            cut = bool(cursor.fetchall())
        with pytest.raises(psycopg2.OperationalError, match=r"too many clients|reserved"):
            while True:
                taken.enter_context(closing(psycopg2.connect(server.url("postgres"))))


def _check_unavailable(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert check_shape(answer)["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
