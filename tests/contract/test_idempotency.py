"""One key, one job, however many posts come at once; over real connections."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from storage import intake
from storage.database import Database
from tests.contract.conftest import CONFIG
from tests.contract.support import check_shape, working
from tests.support import jobs
from workers.queues import WakeUps

KEY = {"Idempotency-Key": "one"}


def post_at_once(url: str, body: dict[str, object], times: int = 50) -> list[httpx2.Response]:
    with httpx2.Client(timeout=60) as client, ThreadPoolExecutor(times) as pool:
        posts = [pool.submit(client.post, url, json=body, headers=KEY) for _ in range(times)]
        return [post.result() for post in posts]


def count(database: Database, table: str) -> int:
    with database.begin() as conn:
        return int(conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_fifty_posts_of_a_job_are_one_job(live: str, database: Database) -> None:
    answers = post_at_once(f"{live}/batch-generate", {"messages": ["a"] * 100})

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert (count(database, "batches"), count(database, "requests")) == (1, 100)


@pytest.mark.parametrize("conversation", [{}, {"conversation_id": "c"}])
def test_fifty_posts_of_a_chat_are_one_turn_with_one_answer(
    live: str, database: Database, conversation: dict[str, object]
) -> None:
    with working(database):
        answers = post_at_once(f"{live}/chat", {"message": "hello", **conversation})

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert count(database, "batches") == count(database, "messages") == 1


@pytest.fixture
def impatient(database_url: str, wake_ups: WakeUps) -> Iterator[TestClient]:
    """An application that waits for a lock for a moment only."""
    database = Database(database_url, statement_timeout=2)
    with TestClient(create_app(CONFIG, database, wake_ups)) as client:
        yield client
    database.close()


@pytest.mark.parametrize(
    ("path", "body"), [("/batch-generate", {"messages": ["a"]}), ("/chat", {"message": "a"})]
)
def test_a_post_whose_twin_takes_too_long_is_a_conflict(
    impatient: TestClient, database: Database, path: str, body: dict[str, object]
) -> None:
    batch = jobs.new_batch(idempotency_key=KEY["Idempotency-Key"], body_hash="other")
    with database.begin() as conn:
        intake.create_batch(conn, batch, jobs.prompts(1))  # and its transaction goes on
        running = impatient.post(path, json=body, headers=KEY)
    afterwards = impatient.post(path, json=body, headers=KEY)

    assert (running.status_code, check_shape(running)["code"]) == (409, "conflict")
    assert check_shape(running)["param"] == "Idempotency-Key"
    assert (afterwards.status_code, check_shape(afterwards)["code"]) == (
        422,
        "idempotency_mismatch",
    )
