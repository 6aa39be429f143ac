"""`/ws/chat/{user_id}/{session_id}`: questions one after another, and who may ask."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api.talking import MAX_WAITING
from storage.states import BatchStatus
from tests.contract.streams.conftest import Stack
from tests.support.waiting import until

TOO_LONG = json.dumps({"query": "a", "history": [["x" * 10_000, ""]]})
LONG = "one two three four five six seven eight"


def _address(url: str, query: str = "", session: str = "ann/1") -> str:
    return f"{url.replace('http', 'ws', 1)}/ws/chat/{session}{query}"


@pytest.fixture
def socket(stack: Stack, request: pytest.FixtureRequest) -> Iterator[ClientConnection]:
    with connect(_address(stack.url, session=f"{id(request)}/1")) as opened:
        yield opened


def _read(socket: ClientConnection) -> list[dict[str, Any]]:
    """The events of one answer."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in ("end", "error"):
        events.append(json.loads(socket.recv(timeout=20)))
    return events


def _said(events: list[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in events if event["type"] == "chunk")


def test_questions_are_answered_one_after_another_in_one_conversation(
    stack: Stack, socket: ClientConnection
) -> None:
    socket.send("hello")
    first = _read(socket)
    socket.send("{not json, but {a text}")
    second = _read(socket)
    socket.send(json.dumps({"query": "again", "max_tokens": 1}))
    third = _read(socket)

    assert [event["type"] for event in (first[0], first[-1])] == ["start", "end"]
    assert _said(first) == "echo: hello"
    assert sorted(_said(second).split()) == sorted(["echo:", "{not", "json,", "but", "{a", "text}"])
    assert (_said(third), third[-1]["finish_reason"]) == ("echo:", "length")
    assert len({events[0]["conversation_id"] for events in (first, second, third)}) == 1
    assert len({events[0]["message_id"] for events in (first, second, third)}) == 3


def test_a_history_stands_for_what_is_stored(stack: Stack, socket: ClientConnection) -> None:
    socket.send("stored")
    _read(socket)
    turns = [[f"question {n}", f"answer {n}"] for n in range(12)]
    socket.send(json.dumps({"query": "now", "history": turns}))
    events = _read(socket)

    assert _said(events) == "echo: now"
    with stack.database.begin() as conn:
        messages = conn.exec_driver_sql(
            "SELECT messages FROM requests WHERE batch_id = %s", (events[0]["request_id"],)
        ).scalar_one()
    said = [text for turn in turns[2:] for text in turn]
    assert [text for _, text in messages] == [*said, "now"]


@pytest.mark.parametrize(
    ("question", "code", "param"),
    [
        ("", "empty_prompt", "message"),
        ('{"query": 5}', "invalid_request", "query"),
        ('{"query": "a", "top_p": 9}', "invalid_request", "top_p"),
        ('{"query": "a", "user_id": "somebody"}', "invalid_request", "user_id"),
        ('{"query": "a", "wait": false}', "invalid_request", "wait"),
        ('{"query": "a", "history": [["one"]]}', "invalid_request", "history.0"),
        (
            json.dumps({"query": "a", "history": [["x" * 10_000, ""]]}),
            "prompt_too_large",
            "message",
        ),
        ("{}", "invalid_request", "message"),
    ],
)
def test_a_wrong_question_is_told_and_the_next_one_answered(
    stack: Stack, question: str, code: str, param: str
) -> None:
    with connect(_address(stack.url, session="wrong/1")) as socket:
        socket.send(question)
        (error,) = _read(socket)
        socket.send(json.dumps({"query": "right", "max_tokens": 1}))
        right = _read(socket)

    assert (error["type"], error["code"], error["param"]) == ("error", code, param)
    assert right[-1]["type"] == "end"


def test_more_questions_than_may_wait_are_refused_and_the_others_answered(
    socket: ClientConnection,
) -> None:
    count = MAX_WAITING + 3
    for number in range(count):
        socket.send(json.dumps({"query": f"{number} {LONG}", "max_tokens": 3}))

    answers = [_read(socket) for _ in range(count)]

    ends = [events[-1] for events in answers]
    refused = [end for end in ends if end["type"] == "error"]
    assert {end["code"] for end in refused} == {"rate_limit_exceeded"}
    assert 1 <= len(refused) <= 3


def test_who_goes_away_cancels_the_answer_at_once(stack: Stack) -> None:
    with connect(_address(stack.url, session="gone/1")) as socket:
        socket.send(LONG)
        start = json.loads(socket.recv(timeout=20))

    stopped = (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    until("it is cancelled", lambda: stack.status(start["request_id"]) in stopped)


def test_a_socket_without_questions_is_closed(socket: ClientConnection) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(timeout=20)

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1000


@pytest.mark.parametrize(
    ("message", "code"), [(b"bytes", 1003), ("x" * 1_100_000, 1009)], ids=["bytes", "long"]
)
def test_what_is_no_question_closes_the_socket(
    socket: ClientConnection, message: bytes | str, code: int
) -> None:
    socket.send(message)
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(timeout=20)

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code


def test_a_key_is_asked_for_and_never_written_down(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for query in ("", "?access_token=wrong"):
        with connect(_address(stack.locked, query)) as socket:
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(timeout=20)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4401
    header = {"Authorization": "Bearer secret"}
    for query, headers in (("", header), ("?x=1&access_token=secret", {})):
        with connect(_address(stack.locked, query), additional_headers=headers) as socket:
            socket.send('{"query": "a", "max_tokens": 1}')
            assert _read(socket)[-1]["type"] == "end"
    httpx2.get(f"{stack.locked}/chat/stream/nothing?access_token=secret")

    # The client here writes its own addresses down.
    ours = [one.getMessage() for one in caplog.records if not one.name.startswith("httpx2")]
    assert any("/ws/chat/ann/1?x=1" in line for line in ours)
    assert not any("secret" in line or "wrong" in line for line in ours)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.elsewhere.example:8000"}, 403),
        ({"Host": "rebound.example"}, 400),
    ],
)
def test_without_keys_no_page_of_another_machine_may_ask(
    stack: Stack, headers: dict[str, str], status: int
) -> None:
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(_address(stack.url), additional_headers=headers),
    ):
        pass

    assert caught.value.response.status_code == status
    with connect(_address(stack.url), additional_headers={"Origin": "http://localhost:3000"}):
        pass
