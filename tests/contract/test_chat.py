"""`POST /chat`: answered, stored, remembered, or refused with a reason."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest
from starlette.testclient import TestClient

from penstock.errors import PromptError
from storage import leases, reading
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import BatchStatus, Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import settle, until
from tests.support import jobs


def test_a_chat_is_answered(client: TestClient, worker: None) -> None:
    answer = client.post("/chat", json={"message": "hello", "conversation_id": "c1"})

    body = answer.json()
    assert answer.status_code == 200
    assert body == {
        "response": "answer 0",
        "conversation_id": "c1",
        "request_id": body["request_id"],
        "tokens_generated": 2,
        "from_cache": False,
        "dropped_turns": 0,
    }
    stored = client.get(f"/batch-result/{body['request_id']}?wait=20").json()
    assert stored["responses"] == ["answer 0"]


def test_a_chat_that_asks_for_more_than_a_text_gets_it_beside_it(
    client: TestClient, database: Database
) -> None:
    body = {"message": "hello", "mode": "score", "choices": ["good", "bad"]}
    probabilities = {"good": 0.75, "bad": 0.25}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/chat", json=body)
        shard = claim_chat(database)
        assert shard.params["choices"] == ["good", "bad"]
        jobs.admit(database, shard)
        detail = json.dumps({"probabilities": probabilities})
        outcome = replace(jobs.answer(0), text="good", detail=detail)
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, [outcome], jobs.LEASE)
        answer = asked.result(timeout=30).json()

    assert (answer["response"], answer["detail"]) == ("good", {"probabilities": probabilities})


def test_a_chat_need_not_wait(client: TestClient, database: Database) -> None:
    answer = client.post("/chat", json={"query": "hello", "wait": False})
    request_id = answer.json()["request_id"]
    settle(database)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/batch-result/{request_id}"
    assert answer.json()["conversation_id"].startswith("conv_")
    assert client.get(f"/batch-result/{request_id}").json()["responses"] == ["answer 0"]


def claim_chat(database: Database) -> ClaimedShard:
    """The shard of a chat that is being posted at this moment."""
    return until(lambda: next(iter(jobs.claim(database, lane=Lane.EXPRESS)), None))


def _say(client: TestClient, message: str, **fields: object) -> str:
    answer = client.post("/chat", json={"message": message, "wait": False, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["conversation_id"])


def _prompt(database: Database) -> list[tuple[str, str]]:
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    (request,) = shard.requests
    with database.begin() as conn:
        leases.admit(conn, shard.id, shard.epoch, [0])
        leases.commit(conn, shard.id, shard.epoch, [jobs.answer(0)], jobs.LEASE)
    jobs.end(database)
    return [*request.history, *request.messages]


def test_earlier_turns_are_sent_along_until_a_reset(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(max_history_turns=1)
    _say(client, "one", conversation_id="c")
    assert _prompt(database) == [("user", "one")]
    _say(client, "two", conversation_id="c")
    assert _prompt(database) == [("user", "one"), ("assistant", "answer 0"), ("user", "two")]
    _say(client, "three", conversation_id="c")
    assert _prompt(database) == [("user", "two"), ("assistant", "answer 0"), ("user", "three")]
    _say(client, "four", conversation_id="c", reset=True)
    assert _prompt(database) == [("user", "four")]
    _say(client, "elsewhere", conversation_id="d")
    assert _prompt(database) == [("user", "elsewhere")]


def test_a_user_and_a_session_name_a_conversation_and_never_two(client: TestClient) -> None:
    pairs = [("a", "b"), ("a/b", "c"), ("a", "b/c"), ("ü" * 128, "x"), ("ü" * 128, "y")]

    names = [_say(client, "hi", user_id=user, session_id=session) for user, session in pairs]

    assert len(set(names)) == len(pairs)
    assert all(len(name) <= 128 for name in names)
    assert names[0] == _say(client, "hi", user_id="a", session_id="b")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", PromptError.EMPTY),
        ("  ", PromptError.EMPTY),
        ("x" * 10_001, PromptError.TOO_LARGE),
    ],
)
def test_a_message_that_cannot_run_is_422(client: TestClient, message: str, code: str) -> None:
    answer = client.post("/chat", json={"message": message})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, code, "message")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (PromptError.TOO_LONG, 422),
        (PromptError.OUT_OF_MEMORY, 422),
        (PromptError.ENGINE, 503),
        (PromptError.POISON, 503),
    ],
)
def test_a_failed_outcome_is_an_error_with_its_code_and_request_id(
    client: TestClient, database: Database, code: str, status: int
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/chat", json={"message": "hello"})
        shard = claim_chat(database)
        jobs.admit(database, shard)
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0, code)], jobs.LEASE)
        answer = asked.result(timeout=20)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["request_id"] == shard.batch_id
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_cancelled_chat_is_a_conflict(client: TestClient, database: Database) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/chat", json={"message": "hello"})
        shard = claim_chat(database)
        client.post(f"/batch-generate/{shard.batch_id}/cancel")
        settle(database)
        answer = asked.result(timeout=20)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, PromptError.CANCELLED)


def leave_after_posting(live: str, database: Database, headers: bytes = b"") -> ClaimedShard:
    """Post a chat, go away once a worker has it; returns what the worker has."""
    body = b'{"message": "hello"}'
    host, port = live.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b"
            b"Content-Length: %d\r\n\r\n%b" % (headers, len(body), body)
        )
        return claim_chat(database)


def test_who_left_with_a_key_comes_back_with_it_for_the_answer(
    live: str, database: Database
) -> None:
    shard = leave_after_posting(live, database, b"Idempotency-Key: back-soon\r\n")
    jobs.admit(database, shard)
    jobs.commit(database, shard)

    headers = {"Idempotency-Key": "back-soon", "Content-Type": "application/json"}
    again = httpx2.post(f"{live}/chat", content=b'{"message": "hello"}', headers=headers)

    assert again.status_code == 200, again.text
    assert again.json()["response"] == "answer 0"


def test_a_client_that_leaves_cancels_its_chat(live: str, database: Database) -> None:
    shard = leave_after_posting(live, database)

    def cancelling() -> bool | None:
        with database.begin() as conn:
            batch = reading.get_batch(conn, jobs.OWNER, shard.batch_id)
        return (batch is not None and batch.status is BatchStatus.CANCELLING) or None

    assert until(cancelling)


def test_nobody_answers_in_time(make_client: MakeClient) -> None:
    client = make_client(chat_timeout=0.2)

    answer = client.post("/chat", json={"message": "hello"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
    assert int(answer.headers["Retry-After"]) > 0
    request_id = answer.json()["request_id"]
    assert client.get(f"/batch-result/{request_id}").json()["status"] == "processing"


def test_a_repeated_chat_with_one_key_is_one_request(client: TestClient, worker: None) -> None:
    body, headers = {"message": "hello"}, {"Idempotency-Key": "k"}

    first = client.post("/chat", json=body, headers=headers)
    second = client.post("/chat", json=body, headers=headers)
    other = client.post("/chat", json={"message": "bye"}, headers=headers)

    assert first.json() == second.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "message"),
        ({"message": 5}, "message"),
        ({"message": ["a"]}, "message"),
        ({"message": "a", "user_id": "u"}, None),
        ({"message": "a", "user_id": "u", "session_id": "s", "conversation_id": "c"}, None),
        ({"message": "a", "conversation_id": ""}, "conversation_id"),
        ({"message": "a", "conversation_id": "x" * 129}, "conversation_id"),
        ({"message": "a", "conversation_id": "nul \0"}, "conversation_id"),
        ({"message": "a", "top_p": 0}, "top_p"),
        ({"message": "a", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"message": "a", "mode": "score"}, "choices"),
        ({"message": "a", "mode": "count"}, "mode"),
        ({"message": "a", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    client: TestClient, body: dict[str, object], param: str | None
) -> None:
    answer = client.post("/chat", json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
