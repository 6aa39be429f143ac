"""Keys of the database over HTTP: who is let in, with what, until when, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from storage import keys
from storage.database import Database
from tests.contract.conftest import CONFIG, MakeClient
from tests.contract.support import check_shape, serving, until
from tests.support import jobs
from tests.support.events import read_events
from tests.support.keys import SECRET, SIGNER, add, bearer, id_of, revoke
from workers.queues import WakeUps

TTL = 0.3  # seconds


@pytest.fixture
def guarded(make_client: MakeClient) -> TestClient:
    return make_client(key_secret=SECRET, key_ttl=TTL)


def status(client: TestClient, key: str, path: str = "/stats") -> int:
    return client.get(path, headers=bearer(key)).status_code


def test_a_key_lets_in_and_what_is_like_it_does_not(
    guarded: TestClient, database: Database
) -> None:
    key = add(database)
    unstored = SIGNER.make().text

    assert status(guarded, key) == 200
    for wrong in (unstored, key[:-1], key[:-1] + "g", key.upper(), SIGNER.own()[:-1], "first"):
        answer = guarded.get("/stats", headers=bearer(wrong))
        assert answer.status_code == 401, wrong
        assert check_shape(answer)["code"] == "invalid_api_key"
        assert wrong not in answer.text
    assert guarded.get("/stats").status_code == 401


def test_a_key_of_another_secret_is_refused(make_client: MakeClient, database: Database) -> None:
    key = add(database)

    assert status(make_client(key_secret="x" * 32), key) == 401
    assert status(make_client(key_secret=None), key) == 401


def test_a_revoked_key_ends_within_the_time_that_it_is_remembered(
    guarded: TestClient, database: Database
) -> None:
    key = add(database)
    assert status(guarded, key) == 200

    revoke(database, key)

    assert until(lambda: status(guarded, key) == 401 or None, seconds=TTL + 5)
    answer = guarded.get("/stats", headers=bearer(key))
    assert check_shape(answer)["message"] == "This API key has expired or was revoked."


def test_the_events_of_a_job_end_with_their_key(database: Database, wake_ups: WakeUps) -> None:
    config = replace(CONFIG, key_secret=SECRET, key_ttl=TTL)
    key, job = add(database), jobs.store(database).id

    with (
        serving(create_app(config, database, wake_ups)) as url,
        httpx2.stream("GET", f"{url}/batch-result/{job}/events", headers=bearer(key)) as answer,
    ):
        events = read_events(answer.iter_lines())
        assert next(events).name == "progress"
        revoke(database, key)
        assert list(events) == []


def test_an_expired_key_ends_at_its_time_though_it_is_remembered(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(key_secret=SECRET, key_ttl=3600.0)
    gone, going = add(database, expires_in=-1.0), add(database, expires_in=3.0)

    assert (status(client, gone), status(client, going)) == (401, 200)
    assert until(lambda: status(client, going) == 401 or None, seconds=10)


def test_the_first_key_closes_a_service_that_was_open_and_the_last_one_opens_none(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(key_secret=SECRET, key_ttl=TTL, own_names_only=True)
    local, public = {"Host": "localhost"}, {"Host": "penstock.example"}
    assert client.get("/stats", headers=local).status_code == 200
    assert client.get("/stats", headers=public).status_code == 400

    key = add(database)

    assert until(lambda: client.get("/stats", headers=local).status_code == 401 or None)
    assert client.get("/stats", headers=public | bearer(key)).status_code == 200
    revoke(database, key)
    assert until(lambda: status(client, key) == 401 or None)
    assert client.get("/stats", headers=local).status_code == 401


def test_keys_in_the_database_count_where_they_cannot_be_checked(
    make_client: MakeClient, database: Database
) -> None:
    add(database)

    assert make_client(key_secret=None).get("/stats").status_code == 401


def test_whoever_has_the_secret_may_ask_how_it_is_and_no_more(
    guarded: TestClient, database: Database
) -> None:
    add(database)
    own = bearer(SIGNER.own())

    assert guarded.get("/stats", headers=own).status_code == 200
    answer = guarded.post("/batch-generate", json={"messages": ["a"]}, headers=own)
    assert answer.status_code == 403
    for path in ("/batch-generate", "/v1/files", "/v1/batches", "/webhooks/deliveries"):
        assert guarded.get(path, headers=own).status_code == 403, path


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        ("jobs", (202, 403, 200, 200)),
        ("chat", (403, 202, 403, 200)),
        ("read", (403, 403, 200, 200)),
        ("files", (403, 403, 403, 200)),
        ("admin", (202, 202, 200, 200)),
        ("no-such-scope", (403, 403, 403, 200)),
    ],
)
def test_a_scope_is_what_a_key_is_good_for(
    guarded: TestClient, database: Database, scope: str, statuses: tuple[int, ...]
) -> None:
    own = bearer(add(database, scopes=(scope,)))

    answers = [
        guarded.post("/batch-generate", json={"messages": ["a"]}, headers=own),
        guarded.post("/chat", json={"message": "a", "wait": False}, headers=own),
        guarded.get("/batch-generate", headers=own),
        guarded.get("/health", headers=own),
    ]

    assert tuple(answer.status_code for answer in answers) == statuses
    for answer in answers:
        if answer.status_code == 403:
            error = check_shape(answer)
            assert (error["type"], error["code"]) == ("permission_error", "insufficient_scope")
            assert "lacks the scope" in str(error["message"])


def test_a_key_for_chats_cancels_a_chat_and_no_job(guarded: TestClient, database: Database) -> None:
    chats, jobs = (bearer(add(database, scopes=(scope,))) for scope in ("chat", "jobs"))
    said = guarded.post("/chat", json={"message": "a", "wait": False}, headers=chats)
    posted = guarded.post("/batch-generate", json={"messages": ["a"]}, headers=jobs)

    def cancel(stored: httpx2.Response, key: dict[str, str]) -> int:
        request_id = stored.json()["request_id"]
        return guarded.post(f"/batch-generate/{request_id}/cancel", headers=key).status_code

    assert (cancel(said, chats), cancel(posted, chats), cancel(posted, jobs)) == (200, 403, 200)


def test_a_remembered_key_asks_no_database_and_an_invented_one_never_does(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(key_secret=SECRET, key_ttl=3600.0)
    key = add(database)
    assert status(client, key, "/batch-generate") == 200

    with database.begin() as conn:
        conn.exec_driver_sql("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        assert status(client, key, "/batch-generate") == 200
        for number in range(200):
            invented = f"psk_{number:016x}_{'0' * 64}"
            assert status(client, invented) == 401


def test_that_a_key_is_in_use_is_written_behind_the_answer(
    guarded: TestClient, database: Database
) -> None:
    key = add(database)
    assert status(guarded, key) == 200

    def noted() -> object:
        with database.begin() as conn:
            found = keys.find(conn, id_of(key))
        return found and found.last_used_at

    assert until(noted)


@pytest.fixture
def without_database(wake_ups: WakeUps) -> Iterator[Database]:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout=1)
    yield database
    database.close()


def test_without_a_database_a_key_that_is_not_remembered_is_503_and_no_other(
    without_database: Database, wake_ups: WakeUps, make_client: MakeClient, database: Database
) -> None:
    config = replace(CONFIG, key_secret=SECRET, keys_required=True)
    with TestClient(create_app(config, without_database, wake_ups)) as client:
        unknown = client.get("/health", headers=bearer(SIGNER.make().text))
        assert (unknown.status_code, check_shape(unknown)["code"]) == (503, "unavailable")
        assert int(unknown.headers["Retry-After"]) > 0
        assert client.get("/health", headers=bearer("psk_invented")).status_code == 401
        assert client.get("/health").status_code == 401


def test_a_crowd_with_one_new_key_reads_it_once_and_is_let_in(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(key_secret=SECRET, key_ttl=3600.0)
    key = add(database)
    with database.begin() as conn:
        conn.exec_driver_sql("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(50) as pool:
            asked = [pool.submit(status, client, key, "/batch-generate") for _ in range(50)]
            # One wait alone, however many came with the key.
            assert until(lambda: _waiting(database) == 1 or None)
            conn.rollback()
            assert {one.result(timeout=20) for one in asked} == {200}


def _waiting(database: Database) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'api_keys'::regclass"
    with database.begin() as conn:
        return int(conn.exec_driver_sql(query).scalar_one())
