"""PostgreSQL away or frozen, an error nobody thought of, and crowds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from storage.database import Database
from tests.contract.conftest import CONFIG
from tests.contract.support import check_shape
from workers.queues import WakeUps


@pytest.fixture
def without_database(wake_ups: WakeUps) -> Iterator[TestClient]:
    """The application with a database that nobody listens for."""
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout=1)
    with TestClient(create_app(CONFIG, database, wake_ups)) as client:
        yield client
    database.close()


def test_without_a_database_everything_is_503_and_quick(without_database: TestClient) -> None:
    job = "batch_00000000000000000000000000000000"
    started = time.monotonic()
    answers = [
        without_database.post("/batch-generate", json={"messages": ["a"]}),
        without_database.post("/chat", json={"message": "a"}),
        without_database.get("/batch-generate"),
        without_database.get(f"/batch-result/{job}"),
        without_database.get(f"/batch-result/{job}?wait=5"),
        without_database.post(f"/batch-generate/{job}/cancel"),
        without_database.get("/stats"),
        without_database.get("/health"),
    ]

    assert time.monotonic() - started < 10
    for answer in answers:
        assert answer.status_code == 503
        assert check_shape(answer)["code"] == "unavailable"
        assert int(answer.headers["Retry-After"]) > 0


def test_without_a_database_probes_and_metrics_still_answer(without_database: TestClient) -> None:
    ready = without_database.get("/readyz")

    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "no answer"
    assert without_database.get("/healthz").status_code == 200
    assert "penstock_database_up 0.0" in without_database.get("/metrics").text


def test_an_error_that_nobody_thought_of_says_nothing_of_its_inside(
    database: Database, wake_ups: WakeUps
) -> None:
    app: FastAPI = create_app(CONFIG, database, wake_ups)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("SELECT secret FROM prompts")

    with TestClient(app) as client:
        answer = client.get("/broken")

    assert answer.status_code == 500
    assert check_shape(answer)["code"] == "internal_error"
    assert "secret" not in answer.text


def test_a_table_that_is_locked_delays_one_request_and_not_the_probes(
    client: TestClient, database: Database
) -> None:
    with database.begin() as conn:
        conn.exec_driver_sql("LOCK TABLE batches")
        with ThreadPoolExecutor(1) as pool:
            posted = pool.submit(client.post, "/batch-generate", json={"messages": ["a"]})
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").json()["checks"]["database"] == "ok"
            conn.rollback()
            assert posted.result(timeout=20).status_code == 202


def test_two_hundred_clients_at_once_are_all_served(client: TestClient) -> None:
    def submit(number: int) -> int:
        messages = ["a"] if number % 4 else []
        return client.post("/batch-generate", json={"messages": messages}).status_code

    with ThreadPoolExecutor(200) as pool:
        statuses = list(pool.map(submit, range(400)))

    assert statuses.count(202) == 300
    assert statuses.count(422) == 100
