"""`/chat/stream`: an answer as it is made, dropped and resumed, left and cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import httpx2
import pytest

from api.app import create_app
from storage.states import BatchStatus
from tests.contract.conftest import CONFIG
from tests.contract.streams.conftest import Stack
from tests.contract.support import check_shape, serving
from tests.support.events import Event, read_events, said
from tests.support.waiting import until
from workers.queues import WakeUps

WORDS = "one two three four five six seven eight"
ANSWER = f"echo: {WORDS}"


@contextmanager
def streaming(
    client: httpx2.Client, message: str = WORDS, key: str | None = None
) -> Iterator[Iterator[Event]]:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"message": message, "conversation_id": "c", "temperature": 0}
    with client.stream("POST", "/chat/stream", json=body, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Location"].startswith("/batch-result/chat_")
        yield read_events(answer.iter_lines())


@contextmanager
def resuming(client: httpx2.Client, request_id: str, last: str | None) -> Iterator[Iterator[Event]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with client.stream("GET", f"/chat/stream/{request_id}", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield read_events(answer.iter_lines())


def test_an_answer_comes_in_pieces_between_a_start_and_an_end(stack: Stack) -> None:
    with stack.client() as client, streaming(client) as stream:
        start, *chunks, end = list(stream)

    request_id = start.data["request_id"]
    assert start.data == {
        "type": "start",
        "content": "",
        "message_id": request_id,
        "conversation_id": "c",
        "request_id": request_id,
    }
    assert {event.type for event in chunks} == {"chunk"}
    assert len(chunks) > 2
    assert said(chunks) == ANSWER
    assert end.data == {
        "type": "end",
        "content": "",
        "message_id": request_id,
        "request_id": request_id,
        "finish_reason": "stop",
        "tokens_generated": 9,
    }
    # The job ends a moment after its only answer.
    result = httpx2.get(f"{stack.url}/batch-result/{request_id}?wait=20", timeout=30).json()
    assert result["responses"] == [ANSWER]


def test_what_is_thought_is_told_apart(stack: Stack) -> None:
    with stack.client() as client, streaming(client, "<think> a b </think> c d") as stream:
        events = list(stream)

    assert said(events) == "echo:  c d"
    thought = [event.data["content"] for event in events if event.type == "thinking"]
    assert "".join(thought) == " a b "


def test_a_dropped_stream_goes_on_where_it_was_cut_in_another_process_too(
    stack: Stack, redis_url_kept: str
) -> None:
    wake_ups = WakeUps(redis_url_kept, "streams:")
    another = create_app(CONFIG, stack.database, wake_ups)
    with serving(another) as url, stack.client() as client, httpx2.Client(base_url=url) as other:
        with streaming(client) as stream:
            start, *begun = list(islice(stream, 2))
        request_id = start.data["request_id"]
        # One event: what was said meanwhile comes as one piece, and nothing after the last.
        with resuming(other, request_id, begun[-1].id) as stream:
            more = list(islice(stream, 1))
        with resuming(client, request_id, more[-1].id) as stream:
            *rest, end = list(stream)
        with resuming(client, request_id, None) as stream:
            again = list(stream)
        over = client.get(f"/chat/stream/{request_id}", headers={"Last-Event-ID": end.id or ""})
    wake_ups.close()

    assert said([*begun, *more, *rest]) == said(again) == ANSWER
    assert (end.type, again[0].data, over.status_code) == ("end", start.data, 204)


def test_who_leaves_for_good_cancels_the_answer_but_not_who_gave_a_key(
    stack: Stack, redis_url_kept: str
) -> None:
    wake_ups = WakeUps(redis_url_kept, "streams:")
    # Nobody serves this model, so that nothing ends by itself.
    config = replace(CONFIG, model="unserved", leave_grace=0.2)
    left = []
    with (
        serving(create_app(config, stack.database, wake_ups)) as url,
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        for key in ("back-soon", None):
            with streaming(client, key=key) as stream:
                left.append(next(stream).data["request_id"])
        kept, gone = left
        until("it is cancelled", lambda: stack.status(gone) is BatchStatus.CANCELLING)
        assert stack.status(kept) is BatchStatus.QUEUED
        with streaming(client, key="back-soon") as stream:
            assert next(stream).data["request_id"] == kept
    wake_ups.close()


def test_a_worker_that_is_killed_in_the_middle_is_not_noticed(stack: Stack) -> None:
    body = {"message": WORDS, "temperature": 1.5}
    with (
        stack.client() as client,
        client.stream("POST", "/chat/stream", json=body) as answer,
    ):
        stream = read_events(answer.iter_lines())
        begun = list(islice(stream, 2))
        killed = stack.processes.running[-1]
        killed.kill()
        killed.wait()
        stack.processes.start("worker")
        rest = list(stream)

    assert rest[-1].type == "end"
    request_id = begun[0].data["request_id"]
    whole = httpx2.get(f"{stack.url}/batch-result/{request_id}?wait=20", timeout=30).json()[
        "responses"
    ]
    assert [said([*begun, *rest])] == whole
    assert sorted(whole[0].split()) == sorted(ANSWER.split())


def test_an_event_source_asks_first_and_follows_then(stack: Stack) -> None:
    with stack.client() as client:
        asked = client.post("/chat/stream", json={"message": "hello", "wait": False})
        assert asked.status_code == 202
        with resuming(client, asked.json()["request_id"], None) as stream:
            events = list(stream)

    assert (events[0].type, said(events), events[-1].type) == ("start", "echo: hello", "end")


@pytest.mark.parametrize(
    ("path", "headers", "status", "param"),
    [
        ("/chat/stream/chat_" + "0" * 32, {}, 404, None),
        ("/chat/stream/nonsense", {}, 404, None),
        ("/chat/stream/chat_" + "0" * 32, {"Last-Event-ID": "x"}, 422, "Last-Event-ID"),
        ("/batch-result/batch_" + "0" * 32 + "/events", {}, 404, None),
        ("/batch-result/batch_" + "0" * 32 + "/events", {"Last-Event-ID": "1"}, 422, None),
    ],
)
def test_what_cannot_be_followed_is_refused_before_the_stream(
    stack: Stack, path: str, headers: dict[str, str], status: int, param: str | None
) -> None:
    answer = httpx2.get(f"{stack.url}{path}", headers=headers)

    assert answer.status_code == status
    assert check_shape(answer)["param"] == (param or ("Last-Event-ID" if status == 422 else None))


def test_a_wrong_message_is_refused_before_the_stream(stack: Stack) -> None:
    for body in ({"message": "  "}, {"message": "a", "top_p": 7}):
        answer = httpx2.post(f"{stack.url}/chat/stream", json=body)
        assert answer.status_code == 422
        check_shape(answer)


def test_a_key_may_be_in_the_address_of_streams_and_nowhere_else(stack: Stack) -> None:
    nobody = "/chat/stream/chat_" + "0" * 32
    for path, status in [
        (f"{nobody}?access_token=secret", 404),
        (f"{nobody}?access_token=wrong", 401),
        (nobody, 401),
        ("/stats?access_token=secret", 401),
        ("/chat/stream?access_token=secret", 405),
    ]:
        assert httpx2.get(f"{stack.locked}{path}").status_code == status, path
    posted = httpx2.post(f"{stack.locked}/chat/stream?access_token=secret", json={"message": "a"})
    assert posted.status_code == 401
