"""`GET /batch-result/{id}`: progress, pages, partial results and long polls."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from storage import leases
from storage.database import Database
from storage.records import Outcome
from tests.contract.conftest import MakeClient
from tests.contract.support import post, settle
from tests.support import jobs

UNKNOWN = [
    "batch_00000000000000000000000000000000",
    "nothing",
    "%00",
    "batch_%00",
    "%ff%fe",
    "%ED%A0%80",
    "..%2f..%2fetc",
    "x" * 5000,
]


def test_an_unfinished_job_shows_progress_and_no_responses(
    client: TestClient, database: Database
) -> None:
    job = post(client, *"abcd", metadata={"k": "v"})
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [1])
    jobs.commit(database, shard, [1])

    result = client.get(f"/batch-result/{job}").json()

    assert result.pop("eta_seconds") >= 0
    assert result == {
        "request_id": job,
        "status": "processing",
        "progress": {"total": 4, "completed": 1, "failed": 0},
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "saved_tokens": 0,
        },
        "metadata": {"k": "v"},
    }


def test_a_queued_job_is_processing_with_an_unknown_end(client: TestClient) -> None:
    result = client.get(f"/batch-result/{post(client, 'a')}").json()

    assert (result["status"], result["eta_seconds"]) == ("processing", None)


def test_partial_shows_what_is_done_so_far(client: TestClient, database: Database) -> None:
    job = post(client, "a", "b", "")
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [1])
    jobs.commit(database, shard, [1])

    result = client.get(f"/batch-result/{job}?partial=true").json()

    assert result["status"] == "processing"
    assert result["responses"] == [None, "answer 1", None]
    assert [error["index"] for error in result["errors"]] == [2]


def test_a_finished_job_has_all_in_input_order_however_often_it_is_read(
    client: TestClient, database: Database
) -> None:
    count = 777  # more than one page of the stream
    job = post(client, *(f"p{i}" if i % 100 else "" for i in range(count)))
    settle(database)

    first, second = (client.get(f"/batch-result/{job}").json() for _ in range(2))

    assert first == second
    assert first["status"] == "completed"
    assert first["responses"] == [f"answer {i}" if i % 100 else None for i in range(count)]
    assert [error["index"] for error in first["errors"]] == list(range(0, count, 100))
    assert first["usage"]["total_tokens"] == 5 * (count - 8)
    assert first["processing_time"] >= 0


def test_details_stand_in_input_order_for_a_job_that_asked_for_them(
    client: TestClient, database: Database
) -> None:
    job = post(client, *"abc", n=2)
    plain = post(client, "a")
    (shard,) = jobs.claim(database)
    assert shard.params["n"] == 2
    jobs.admit(database, shard)
    told = {"completions": [{"text": "ü", "finish_reason": "stop", "tokens": 1}]}
    outcomes = [
        replace(jobs.answer(0), detail=json.dumps(told)),
        jobs.failure(1),
        replace(jobs.answer(2), detail="{}"),
    ]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
    settle(database)

    result = client.get(f"/batch-result/{job}").json()
    page = client.get(f"/batch-result/{job}?offset=1&limit=2").json()

    assert result["details"] == [told, None, {}]
    assert (page["responses"], page["details"]) == ([None, "answer 2"], [None, {}])
    assert [error["index"] for error in result["errors"]] == [1]
    assert "details" not in client.get(f"/batch-result/{plain}").json()


def test_the_token_ids_of_labels_stand_beside_counted_prompts(
    client: TestClient, database: Database
) -> None:
    job = post(client, "a", mode="count", choices=["a", "b"])
    plain = post(client, "a", mode="count")
    told = {"choices": {"a": [1], "b": [2, 3]}}
    for detail in (json.dumps(told), None):
        (shard,) = jobs.claim(database)
        counted = Outcome(0, "", "stop", 7, 0, detail=detail, counted=True)
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, [counted], jobs.LEASE)
    settle(database)

    results = [client.get(f"/batch-result/{one}").json() for one in (job, plain)]

    for result in results:
        assert (result["status"], result["responses"]) == ("completed", [""])
        assert result["tokens"] == [[7, 0]]
    assert results[0]["details"] == [told]
    assert "details" not in results[1]


def test_the_tokens_of_each_prompt_stand_in_input_order(
    client: TestClient, database: Database
) -> None:
    job = post(client, *"abc", "")
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    outcomes = [
        replace(jobs.answer(0), prompt_tokens=7, completion_tokens=1),
        replace(jobs.failure(2), prompt_tokens=9, completion_tokens=0),
    ]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

    result = client.get(f"/batch-result/{job}?partial=true").json()
    page = client.get(f"/batch-result/{job}?offset=1&limit=2").json()

    assert result["tokens"] == [[7, 1], None, [9, 0], [0, 0]]
    assert page["tokens"] == [None, [9, 0]]


def test_details_of_a_long_job_come_in_many_pieces_and_in_order(
    client: TestClient, database: Database
) -> None:
    job = post(client, *map(str, range(150)), mode="score", choices=["a", "b"])
    while claimed := jobs.claim(database):
        (shard,) = claimed
        jobs.admit(database, shard)
        outcomes = [
            replace(jobs.answer(row.position), detail=f'{{"position": {row.position}}}')
            for row in shard.requests
        ]
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
    settle(database)

    result = client.get(f"/batch-result/{job}").json()

    assert result["details"] == [{"position": position} for position in range(150)]
    assert result["responses"] == [f"answer {position}" for position in range(150)]


def test_pages_are_ranges_of_prompts(client: TestClient, database: Database) -> None:
    job = post(client, *(f"p{i}" for i in range(9)), "")
    settle(database)

    def page(query: str) -> dict[str, object]:
        return dict(client.get(f"/batch-result/{job}?{query}").json())

    middle = page("offset=3&limit=2")
    assert (middle["offset"], middle["responses"], middle["errors"]) == (
        3,
        ["answer 3", "answer 4"],
        [],
    )
    last = page("offset=8&limit=5000")
    assert last["responses"] == ["answer 8", None]
    assert [e["index"] for e in last["errors"]] == [9]  # type: ignore[attr-defined]
    beyond = page("offset=10&limit=1")
    assert (beyond["offset"], beyond["responses"], beyond["errors"]) == (10, [], [])
    assert page("limit=1")["responses"] == ["answer 0"]


def test_a_page_of_an_unfinished_job_shows_what_is_done(
    client: TestClient, database: Database
) -> None:
    job = post(client, "a", "b")

    assert client.get(f"/batch-result/{job}?offset=0&limit=2").json()["responses"] == [None, None]


def test_a_bad_query_is_refused_by_name(client: TestClient) -> None:
    job = post(client, "a")
    for query, field in [
        ("offset=-1", "offset"),
        ("limit=0", "limit"),
        ("limit=5001", "limit"),
        ("offset=99999999999999999999", "offset"),
        ("offset=x", "offset"),
        ("wait=61", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("partial=perhaps", "partial"),
    ]:
        answer = client.get(f"/batch-result/{job}?{query}")

        assert (answer.status_code, answer.json()["error"]["param"]) == (422, field), query


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/batch-result/{}"),
        ("POST", "/batch-generate/{}/cancel"),
        ("POST", "/batch-generate/{}/retry-failed"),
    ],
)
def test_unknown_ids_are_404(client: TestClient, method: str, path: str) -> None:
    for name in UNKNOWN:
        answer = client.request(method, path.format(name))

        assert answer.status_code == 404, name
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_another_owners_job_is_unknown(client: TestClient, database: Database) -> None:
    theirs = jobs.store(database, owner="somebody else")

    assert client.get(f"/batch-result/{theirs.id}").status_code == 404
    assert client.post(f"/batch-generate/{theirs.id}/cancel").status_code == 404
    assert client.post(f"/batch-generate/{theirs.id}/retry-failed").status_code == 404
    assert client.get("/batch-generate").json() == {"data": []}


def test_a_long_poll_ends_when_the_job_does(client: TestClient, database: Database) -> None:
    job = post(client, "a")
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        polled = pool.submit(client.get, f"/batch-result/{job}?wait=60")
        settle(database)
        result = polled.result(timeout=20).json()

    assert result["status"] == "completed"
    assert time.monotonic() - started < 20


def test_a_long_poll_answers_with_progress_when_its_time_is_up(client: TestClient) -> None:
    job = post(client, "a")
    started = time.monotonic()

    result = client.get(f"/batch-result/{job}?wait=0.2").json()

    assert result["status"] == "processing"
    assert 0.2 <= time.monotonic() - started < 10


def test_a_finish_that_nobody_notified_is_found_by_asking(
    client: TestClient, database: Database
) -> None:
    job = post(client, "a")
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(client.get, f"/batch-result/{job}?wait=60")
        with database.begin() as conn:  # by hand: no notification
            conn.exec_driver_sql(
                "UPDATE batches SET status = 'completed', completed = 1, finished_at = now()"
            )
        assert polled.result(timeout=20).json()["status"] == "completed"


def test_more_waiting_clients_than_allowed_are_refused(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(max_waiting=1)
    job = post(client, "a")
    with ThreadPoolExecutor(2) as pool:
        polls = [pool.submit(client.get, f"/batch-result/{job}?wait=30") for _ in range(2)]
        refused = next(p.result() for p in as_completed(polls))
        settle(database)
        answers = sorted(poll.result(timeout=30).status_code for poll in polls)

    assert answers == [200, 503]
    assert refused.json()["error"]["code"] == "overloaded"
    assert int(refused.headers["Retry-After"]) > 0
