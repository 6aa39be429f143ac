"""The client against a service that is away, busy, broken or something else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.responses import PlainTextResponse, Response

from penstock.client import Client
from penstock.errors import Conflict, InvalidRequest, Overloaded, PenstockError, Unavailable
from tests.support.service import Service, listen, problem, serving


def busy(**headers: str) -> Response:
    return problem(503, "overloaded", "Too much work.", **headers)


@contextmanager
def breaking_once(service: Service) -> Iterator[Service]:
    """A service whose first connection is cut after the first bytes of the request."""
    listener = listen()
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = threading.Event()
    ready = threading.Event()

    def cut_then_serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()
        with serving(service, listener):
            ready.set()
            done.wait(30)

    thread = threading.Thread(target=cut_then_serve)
    thread.start()
    try:
        yield service
    finally:
        done.set()
        thread.join(timeout=30)


def test_a_busy_service_is_asked_again_with_the_same_key_and_body(
    service: Service, client: Client
) -> None:
    service.faults.extend([busy(), problem(429, "overloaded", "Slow down.")])

    job = client.submit(text for text in ["read", "only", "once"])

    assert service.jobs[job.id].messages == ["read", "only", "once"]
    posts = [seen.headers["idempotency-key"] for seen in service.seen]
    assert len(posts) == 3
    assert len(set(posts)) == 1


def test_retry_after_is_honored(service: Service, client: Client) -> None:
    service.faults.append(busy(Retry_After="1"))
    started = time.monotonic()

    client.submit(["a"])

    assert time.monotonic() - started >= 1


def test_a_wait_beyond_the_limit_is_refused_at_once(service: Service, client: Client) -> None:
    service.faults.append(busy(Retry_After="600"))
    started = time.monotonic()

    with pytest.raises(Overloaded, match=r"Too much work\."):
        client.submit(["a"])

    assert time.monotonic() - started < 3


def test_a_key_still_in_use_is_asked_again_but_another_conflict_is_not(
    service: Service, client: Client
) -> None:
    service.faults.append(problem(409, "conflict", "Still being stored."))
    job = client.submit(["a"])
    service.faults.append(problem(409, "conflict", "It still runs."))

    with pytest.raises(Conflict, match=r"It still runs\."):
        job.retry_failed()


def test_a_chat_whose_key_is_in_use_is_asked_again_but_not_one_that_was_cancelled(
    service: Service, client: Client
) -> None:
    service.faults.append(problem(409, "conflict", "Still being stored."))
    assert client.chat("hello").response == "echo: hello"
    service.faults.append(problem(409, "cancelled", "It was cancelled."))

    with pytest.raises(Conflict, match=r"It was cancelled\."):
        client.chat("hello")

    first, second, _ = (seen.headers["idempotency-key"] for seen in service.seen)
    assert first == second


def test_polling_survives_a_service_that_comes_back() -> None:
    service = Service()
    with serving(service, listen()), Client(service.url) as first:
        job_id = first.submit(["a"]).id
    port = int(service.url.rpartition(":")[2])
    notes: list[PenstockError] = []
    away = threading.Event()

    def note(error: PenstockError, pause: float) -> None:
        notes.append(error)
        away.set()

    def come_back() -> None:
        away.wait(30)
        with serving(service, socket.create_server(("127.0.0.1", port))):
            done.wait(30)

    done = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        with Client(service.url, retry_for=30, on_retry=note) as client:
            assert client.job(job_id).status().status.finished
    finally:
        done.set()
        thread.join(timeout=30)
    assert "nothing accepts a connection there" in notes[0].message


def test_a_post_on_a_broken_connection_is_repeated_under_its_key() -> None:
    with breaking_once(Service()) as service, Client(service.url) as client:
        job = client.submit(["a"], idempotency_key="k")

        assert service.jobs[job.id].key == "k"
        assert len(service.jobs) == 1


def test_what_is_not_safe_to_repeat_is_not_repeated() -> None:
    with breaking_once(Service()) as service, Client(service.url) as client:
        with pytest.raises(Unavailable, match="the connection broke"):
            client.job("batch_1").retry_failed()

        assert service.seen == []


def test_an_absent_service_is_a_sentence_within_the_limit() -> None:
    with listen() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started = time.monotonic()

    with Client(url, retry_for=0.5) as client, pytest.raises(Unavailable, match=url):
        client.job("batch_1").status()

    assert time.monotonic() - started < 5


def test_something_else_on_the_port_is_a_sentence(service: Service, client: Client) -> None:
    service.faults.append(PlainTextResponse("welcome"))
    with pytest.raises(PenstockError, match="no Penstock service"):
        client.job("batch_1").status()

    service.faults.append(PlainTextResponse("<h1>no</h1>", 500))
    with pytest.raises(PenstockError, match="answered 500"):
        client.job("batch_1").status()


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client(service.url, retry_for=0) as client:
        client.ping()

    assert service.seen[0].path == "/healthz"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "", "http://a:b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Client(url)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        Client("http://127.0.0.1:1", key)
