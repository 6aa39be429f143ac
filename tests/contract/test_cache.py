"""`/cache/*`, and what is told of answers to equal prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from storage import leases, response_cache
from storage.client_cache import OwnerBounds
from storage.database import Database
from storage.records import Outcome
from storage.states import Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, post, until
from tests.support import jobs

VALUES = [
    None,
    0,
    "text",
    [1, [2.5, None]],
    {"a": {"b": True}},
    "\x00 and half a \ud800 pair",
    "ü" * 100,
    10**30,
]


def put(client: TestClient, key: str, value: object) -> httpx2.Response:
    body = json.dumps({"key": key, "value": value})
    answer = client.post("/cache/set", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("value", VALUES)
def test_what_was_set_comes_back(client: TestClient, value: object) -> None:
    answers = [put(client, "k", value), client.get("/cache/get/k")]

    for answer in answers:
        assert answer.json() == {"key": "k", "value": value, "found": True}


@pytest.mark.parametrize("key", ["a", "a/b", "/", "ü ?#%", "x" * 256])
def test_any_text_may_be_a_key(client: TestClient, key: str) -> None:
    put(client, key, 1)

    got = client.get(f"/cache/get/{quote(key, safe='')}")

    assert got.json() == {"key": key, "value": 1, "found": True}


def test_a_key_that_is_not_there_is_no_error(client: TestClient) -> None:
    nothing = {"key": "k", "value": None, "found": False}
    assert client.get("/cache/get/k").json() == nothing
    assert client.delete("/cache/delete/k").json() == nothing

    put(client, "k", 1)
    assert client.delete("/cache/delete/k").json() == {"key": "k", "value": None, "found": True}
    assert client.get("/cache/get/k").json() == nothing


def test_statistics_count_keys_and_reads(client: TestClient, database: Database) -> None:
    empty = {"total_keys": 0, "hits": 0, "misses": 0, "hit_rate": 0.0}
    assert client.get("/cache/stats").json() == empty

    put(client, "a", 1)
    put(client, "b", 1)
    for key in ("a", "a", "b", "none"):
        client.get(f"/cache/get/{key}")
    with database.begin() as conn:
        conn.execute(text("UPDATE client_cache SET expires_at = now() WHERE key = 'b'"))

    assert not client.get("/cache/get/b").json()["found"]
    stats = client.get("/cache/stats").json()
    assert stats == {"total_keys": 1, "hits": 3, "misses": 2, "hit_rate": 0.6}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"[1]", 400, None),
        (b'{"key": "k", "value": NaN}', 400, None),
        (b'{"key": "k", "value": ' + b"[" * 100_000, 400, None),
        (b'{"key": "k", "value": ' + b"1" * 5_000 + b"}", 400, None),
        (b'{"key": "k"}', 422, "value"),
        (b'{"value": 1}', 422, "key"),
        (b'{"key": "", "value": 1}', 422, "key"),
        (b'{"key": 5, "value": 1}', 422, "key"),
        (b'{"key": "a\\u0000", "value": 1}', 422, "key"),
        (b'{"key": "\\ud800", "value": 1}', 422, "key"),
        (b'{"key": "%s", "value": 1}' % (b"x" * 257), 422, "key"),
        (b'{"key": "k", "value": 1e999}', 422, "value"),
        (b'{"key": "k", "value": 1, "ttl": 0}', 422, "ttl"),
        (b'{"key": "k", "value": 1, "ttl": 1.5}', 422, "ttl"),
        (b'{"key": "k", "value": 1, "ttl": true}', 422, "ttl"),
        (b'{"key": "k", "value": 1, "ttl": null}', 422, "ttl"),
        (b'{"key": "k", "value": 1, "ttl": 100000000}', 422, "ttl"),
        (b'{"key": "k", "value": 1, "ttl": 1%s}' % (b"0" * 400), 422, "ttl"),
        (b'{"key": "k", "value": 1, "owner": "eve"}', 422, "owner"),
        (b'{"key": "k", "value": "%s"}' % (b"x" * 65_536), 413, "value"),
        (b'{"key": "k", "value": "%s"}' % (b"x" * 500_000), 413, None),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
def test_a_bad_set_names_the_field(
    client: TestClient, body: bytes, status: int, param: str | None
) -> None:
    answer = client.post("/cache/set", content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, check_shape(answer)["param"]) == (status, param), answer.text


@pytest.mark.parametrize("key", ["", "%00", "x" * 257])
def test_a_bad_key_in_the_path_is_named(client: TestClient, key: str) -> None:
    for answer in (client.get(f"/cache/get/{key}"), client.delete(f"/cache/delete/{key}")):
        assert (answer.status_code, check_shape(answer)["param"]) == (422, "key")


def test_an_owner_with_as_much_as_it_may_have_is_told_when_there_is_room(
    make_client: MakeClient,
) -> None:
    client = make_client(cache_bounds=OwnerBounds(keys=1), max_cache_ttl=30)
    put(client, "a", 1)
    put(client, "a", 2)

    answer = client.post("/cache/set", json={"key": "b", "value": 1})

    assert (answer.status_code, check_shape(answer)["param"]) == (429, "key")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30


def reused(position: int) -> Outcome:
    return jobs.reused(position) if position else jobs.answer(position)


def finish(database: Database, lane: Lane, outcome: Callable[[int], Outcome]) -> None:
    """Answer the one job that waits."""
    shard = until(lambda: next(iter(jobs.claim(database, lane=lane)), None))
    jobs.admit(database, shard)
    outcomes = [outcome(request.position) for request in shard.requests]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)


def test_results_and_usage_tell_what_was_reused(client: TestClient, database: Database) -> None:
    job = post(client, *"abc", temperature=0, use_cache=True)
    finish(database, Lane.BULK, reused)

    body = client.get(f"/batch-result/{job}?partial=true").json()
    page = client.get(f"/batch-result/{job}?offset=1&limit=1").json()

    assert body["responses"] == ["answer 0", "answer 1", "answer 2"]
    assert body["from_cache"] == [False, True, True]
    assert body["usage"]["saved_tokens"] == 10
    assert page["from_cache"] == [True]
    assert "from_cache" not in client.get(f"/batch-result/{job}?offset=0&limit=1").json()


@pytest.mark.parametrize("reuse", [False, True])
def test_a_chat_tells_whether_it_was_reused(
    client: TestClient, database: Database, reuse: bool
) -> None:
    made = jobs.reused if reuse else jobs.answer
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/chat", json={"message": "hello", "use_cache": reuse})
        finish(database, Lane.EXPRESS, made)
        answer = asked.result(timeout=30).json()

    assert (answer["response"], answer["from_cache"]) == ("answer 0", reuse)


def test_use_cache_has_to_be_a_boolean(client: TestClient) -> None:
    answer = client.post("/chat", json={"message": "hello", "use_cache": "yes"})

    assert (answer.status_code, check_shape(answer)["param"]) == (422, "use_cache")


def test_the_service_tells_of_its_own_answers(
    client: TestClient, database: Database, registered: None
) -> None:
    stats = {"cache_hits": 3, "cache_misses": 1, "saved_tokens": 50}
    outcome = replace(jobs.answer(0), digest=b"d")
    job = jobs.store(database)
    with database.begin() as conn:
        response_cache.keep(conn, job.id, [outcome])
        conn.execute(
            text("UPDATE workers SET stats = stats || CAST(:stats AS jsonb)"),
            {"stats": '{"cache_hits": 3, "cache_misses": 1, "saved_tokens": 50}'},
        )

    assert client.get("/health").json()["cache_size"] == 1
    told = client.get("/stats").json()["cache"]
    assert told == {"size": 1, "hits": 3, "misses": 1, "saved_tokens": 50}
    metrics = client.get("/metrics").text
    for name, value in stats.items():
        assert f'penstock_worker_{name}{{lane="",model="fake",slot="slot-1"}} {value}.0' in metrics
