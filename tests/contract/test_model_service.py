"""`/api/v1`: the model-service family."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from api.dependencies import hash_key
from storage import fleet, leases, orders
from storage.database import Database
from storage.states import Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, until
from tests.support import jobs
from tests.support.keys import bearer

HISTORY = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
LOAD = "/api/v1/model/load"


def test_a_message_is_answered_with_the_history_it_brings(
    client: TestClient, database: Database
) -> None:
    with ThreadPoolExecutor(1) as pool:
        body = {"message": "and?", "history": HISTORY, "temperature": 0}
        asked = pool.submit(client.post, "/api/v1/chat", json=body)
        (shard,) = until(lambda: jobs.claim(database, lane=Lane.EXPRESS) or None)
        jobs.admit(database, shard)
        jobs.commit(database, shard)
        jobs.end(database)
        answer = asked.result(timeout=20)

    assert shard.requests[0].messages == (("user", "q"), ("assistant", "a"), ("user", "and?"))
    assert shard.params["trim"] is True
    assert answer.status_code == 200
    assert answer.json() == {
        "response": "answer 0",
        "success": True,
        "error": None,
        "request_id": shard.batch_id,
        "dropped_turns": 0,
    }
    assert client.get("/conversations").json()["data"] == []


def test_an_answer_that_failed_says_so_in_both_shapes(
    client: TestClient, database: Database
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/api/v1/chat", json={"message": "hello"})
        (shard,) = until(lambda: jobs.claim(database, lane=Lane.EXPRESS) or None)
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
        answer = asked.result(timeout=20)

    assert answer.status_code == 422
    assert check_shape(answer)["code"] == "context_length_exceeded"
    assert (answer.json()["success"], answer.json()["response"]) == (False, None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "message"),
        ({"message": " "}, "message"),
        ({"message": "a", "history": "b"}, "history"),
        ({"message": "a", "history": [{"role": "user"}]}, "history.0.content"),
        ({"message": "a", "history": [{"role": "robot", "content": "b"}]}, "history.0.role"),
        ({"message": "a", "history": [{"role": "user", "content": "\0"}]}, "history.content"),
        ({"message": "a", "history": [*HISTORY] * 501}, "history"),
        ({"message": "a", "model": "none"}, "model"),
        ({"message": "a", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    client: TestClient, body: dict[str, object], param: str
) -> None:
    answer = client.post("/api/v1/chat", json=body)

    assert answer.status_code in (404, 422)
    assert check_shape(answer)["param"] == param
    assert answer.json()["success"] is False


def test_health_and_info_tell_what_is_loaded(
    client: TestClient, database: Database, registered: None
) -> None:
    assert client.get("/api/v1/health").json() == {"status": "ok", "message": "fake is loaded."}
    assert client.get("/api/v1/model/info").json() == {
        "model_name": jobs.MODEL,
        "device": "cuda:0",
        "is_loaded": True,
        "model_size": 4096,
        "available": [jobs.MODEL],
        "load_error": None,
    }
    with database.begin() as conn:
        conn.exec_driver_sql("UPDATE workers SET beat_at = now() - interval '31 seconds'")

    assert client.get("/api/v1/health").json()["status"] == "degraded"
    assert client.get("/api/v1/model/info").json()["is_loaded"] is False


def _register(database: Database, slot: str, model: str, *choices: str) -> None:
    with database.begin() as conn:
        fleet.register(conn, slot, f"boot of {slot}", model, {"choices": list(choices)})


@pytest.mark.parametrize(
    ("workers", "body", "status", "param", "says"),
    [
        ({"s": ("a", "b", "fake")}, {}, 422, "model_name", "missing"),
        ({"s": ("a", "b", "fake")}, {"model_name": "c"}, 404, "model_name", "a, b, fake"),
        ({"s": ()}, {"model_name": "a"}, 409, "model_name", "PENSTOCK_MODEL__CHOICES"),
        ({}, {"model_name": "a"}, 503, None, "No worker is alive"),
        ({"s": ("a",), "t": ("a",)}, {"model_name": "a"}, 422, "slot", "one of s, t"),
        ({"s": ("a",)}, {"model_name": "a", "slot": "u"}, 422, "slot", "one of s"),
        ({"s": ("a",)}, {"model_name": "a\0"}, 422, "model_name", "surrogate"),
        ({"s": ("a",)}, {"model_name": "a", "path": "/etc"}, 422, "path", "not a field"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused_with_the_reason(
    client: TestClient,
    database: Database,
    workers: dict[str, tuple[str, ...]],
    body: dict[str, str],
    status: int,
    param: str | None,
    says: str,
) -> None:
    for slot, choices in workers.items():
        _register(database, slot, "fake", *choices)

    answer = client.post(LOAD, json=body)

    error = check_shape(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert says in str(error["message"])


def test_an_error_of_a_chat_has_success_false_wherever_it_was_raised(
    make_client: MakeClient,
) -> None:
    client = make_client(key_hashes=(hash_key("secret"),))
    bad = {**bearer("secret"), "Idempotency-Key": "x" * 1_000}

    answers = [client.post("/api/v1/chat", json={"message": "a"}, headers=h) for h in ({}, bad)]

    assert [answer.status_code for answer in answers] == [401, 422]
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"
    for answer in answers:
        check_shape(answer)
        assert (answer.json()["success"], answer.json()["response"]) == (False, None)


def test_an_order_is_kept_for_the_worker_and_what_is_loaded_needs_none(
    client: TestClient, database: Database
) -> None:
    _register(database, "s", "a", "a", "b")
    _register(database, "t", "a", "a", "b")

    ordered = client.post(LOAD, json={"model_name": "b", "slot": "t"})
    already = client.post(LOAD, json={"model_name": "a", "slot": "s"})
    back = client.post(LOAD, json={"model_name": "a", "slot": "t"})

    assert (ordered.status_code, ordered.json()["status"]) == (202, "loading")
    assert (already.status_code, already.json()["status"]) == (200, "loaded")
    assert back.status_code == 202
    with database.begin() as conn:
        assert [orders.wanted(conn, slot) for slot in "st"] == [None, "a"]


def test_jobs_of_every_configured_model_are_taken_and_the_ordered_one_is_the_default(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(choices=frozenset({"other"}))
    _register(database, "s", "fake", "fake", "other")

    def model_of(**fields: object) -> str:
        body = {"messages": ["a"], **fields}
        answer = client.post("/batch-generate", json=body)
        assert answer.status_code == 202, answer.text
        return str(client.get("/batch-generate").json()["data"][0]["model"])

    assert model_of() == "fake"
    assert model_of(model="other") == "other"
    client.post(LOAD, json={"model_name": "other"})
    assert model_of() == "other"
    assert model_of(model="fake") == "fake"
    _register(database, "t", "fake")
    assert model_of() == "fake"


def test_a_chat_does_not_wait_for_a_model_that_nobody_is_about_to_load(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(choices=frozenset({"other"}))
    _register(database, "s", "fake", "fake", "other")
    said = {"message": "a", "model": "other", "wait": False}

    refused = client.post("/chat", json=said)
    client.post(LOAD, json={"model_name": "other"})

    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    assert str(check_shape(refused)["message"]).startswith("No worker serves other now")
    assert client.post("/chat", json=said).status_code == 202
    assert client.post("/chat", json={**said, "model": "fake"}).status_code == 503


def test_a_service_is_ready_with_any_of_its_models(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(choices=frozenset({"other"}))
    _register(database, "s", "other", "fake", "other")

    assert client.get("/readyz").status_code == 200
    assert client.get("/health").json()["model"] == "other"
    assert client.get("/stats").json()["model"]["loaded"] is True
