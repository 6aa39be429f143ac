"""Requests and tokens a minute: counted, told, refused; and no answer is lost without Redis."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from api.current import Rates
from storage.database import Database
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape
from tests.support.keys import SECRET, add, bearer

Limited = Callable[..., TestClient]
DURATION = r"\d+ms|(\d+m)?\d+(\.\d+)?s"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, each request is counted."""
    monkeypatch.setattr("api.rates.PATIENCE", 60.0)


@pytest.fixture
def limited(make_client: MakeClient, redis_url: str, patient: None) -> Limited:
    def make(requests: int | None = None, tokens: int | None = None, **more: object) -> TestClient:
        return make_client(rates=Rates(requests, tokens), **{"redis_url": redis_url, **more})

    return make


def say(client: TestClient, message: str = "hello", **fields: object) -> httpx2.Response:
    return client.post("/chat", json={"message": message, "wait": False, **fields})


def check_refused(answer: httpx2.Response) -> str:
    assert answer.status_code == 429
    error = check_shape(answer)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    return str(error["message"])


def test_requests_are_counted_told_and_refused(limited: Limited) -> None:
    client = limited(requests=3)

    answers = [client.get("/batch-generate") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    told = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert told == ["2", "1", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert re.fullmatch(DURATION, answer.headers["x-ratelimit-reset-requests"])
        assert "x-ratelimit-limit-tokens" not in answer.headers
    assert "3 requests per minute" in check_refused(answers[-1])
    # Whoever looks after the service is not counted.
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200


def test_all_processes_count_together_and_each_owner_alone(
    limited: Limited, database: Database
) -> None:
    first = limited(requests=2, key_secret=SECRET)
    second = limited(requests=2, key_secret=SECRET)
    ann, bob = bearer(add(database, "ann")), bearer(add(database, "bob"))

    own = [client.get("/stats", headers=ann).status_code for client in (first, second, first)]

    assert own == [200, 200, 429]
    assert second.get("/stats", headers=bob).status_code == 200


def test_a_key_may_have_limits_of_its_own(limited: Limited, database: Database) -> None:
    client = limited(requests=1, key_secret=SECRET)
    own = bearer(add(database, requests_per_minute=2))

    answers = [client.get("/stats", headers=own) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"


def test_a_chat_costs_the_tokens_it_may_take_and_one_refused_is_not_there(
    limited: Limited,
) -> None:
    client = limited(tokens=50)

    first = say(client, "x" * 40, max_tokens=20)
    second = say(client, "x" * 40, max_tokens=20)
    small = say(client, "x", max_tokens=2)

    # 40 letters, and `[["user",""]]` around them, are 14 tokens by their bytes.
    assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (202, "16")
    assert "50 tokens per minute" in check_refused(second)
    assert small.status_code == 202
    assert client.get("/stats").json()["queue_depth"] == 2
    assert client.post("/batch-generate", json={"messages": ["x" * 400]}).status_code == 202


def test_a_chat_that_could_never_fit_is_413(limited: Limited) -> None:
    answer = say(limited(tokens=50), max_tokens=100)

    assert (answer.status_code, check_shape(answer)["code"]) == (413, "too_large")
    assert "50 per minute" in answer.json()["detail"]


@pytest.mark.usefixtures("worker")
def test_a_websocket_counts_as_a_request_and_so_does_each_of_its_questions(
    limited: Limited,
) -> None:
    client = limited(requests=4)

    with client.websocket_connect("/ws/chat/ann/1") as socket:
        ends = []
        for number in range(4):
            socket.send_text(f"{number}")
            event = socket.receive_json()
            while event["type"] not in ("end", "error"):
                event = socket.receive_json()
            ends.append(event.get("code", "answered"))
        socket.send_bytes(b"not a question, so that the socket is closed from there")
        assert socket.receive()["type"] == "websocket.close"

    assert ends == [*["answered"] * 3, "rate_limit_exceeded"]


def test_without_redis_all_are_served_and_told_of_no_limit(limited: Limited) -> None:
    client = limited(requests=1, tokens=1_000, redis_url="redis://127.0.0.1:1/0")

    answers = [say(client) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202] * 3
    assert not any(name.startswith("x-ratelimit") for name in answers[0].headers)


def test_a_redis_that_hangs_delays_one_request_and_then_nobody(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.rates.PATIENCE", 0.1)
    monkeypatch.setattr("api.rates.PAUSE", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        client = limited(requests=1, redis_url=url)
        answers = [client.get("/batch-generate") for _ in range(20)]
        silent.setblocking(False)
        asked, _ = silent.accept()
        with asked, pytest.raises(BlockingIOError):
            silent.accept()

    assert {answer.status_code for answer in answers} == {200}
