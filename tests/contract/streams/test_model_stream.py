"""`/api/v1/chat/stream`: the model-service family's events, and turns that do not fit."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from api.app import create_app
from storage import reading
from storage.database import Database
from storage.states import BatchStatus
from tests.contract.conftest import CONFIG
from tests.contract.streams.conftest import Stack
from tests.contract.support import check_shape, serving
from tests.support import jobs
from tests.support.events import Event, read_events, said
from tests.support.waiting import until
from workers.queues import WakeUps

LONG = [
    {"role": role, "content": f"{number} {'word ' * 200}"}
    for number in range(3)
    for role in ("user", "assistant")
]


def _stream(stack: Stack, **fields: object) -> list[Event]:
    body = {"message": "one two three", "temperature": 0, **fields}
    with (
        stack.client() as client,
        client.stream("POST", "/api/v1/chat/stream", json=body) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(read_events(answer.iter_lines()))


def test_an_answer_comes_as_start_chunks_and_end(stack: Stack) -> None:
    start, *chunks, end = _stream(stack)

    request_id = start.data["request_id"]
    assert start.data == {"type": "start", "content": "", "request_id": request_id}
    assert {tuple(event.data) for event in chunks} == {("type", "content")}
    assert len(chunks) > 2 and said(chunks) == "echo: one two three"
    assert end.data == {"type": "end", "content": "", "request_id": request_id}


def test_what_was_thought_is_not_told(stack: Stack) -> None:
    events = _stream(stack, message="<think> a b </think> c d")

    assert {event.type for event in events} == {"start", "chunk", "end"}


def test_turns_that_do_not_fit_are_left_out_and_counted(stack: Stack) -> None:
    *_, end = _stream(stack, history=LONG)

    assert end.data["dropped_turns"] == 2


def test_a_prompt_that_has_no_answer_ends_in_an_error(stack: Stack) -> None:
    start, error = _stream(stack, message="word " * 1_000)

    assert (error.type, error.data["code"]) == ("error", "context_length_exceeded")
    assert start.type == "start"


@pytest.mark.parametrize("fields", [{"message": ""}, {"history": "a"}, {"colour": "red"}])
def test_a_wrong_field_is_refused_before_the_stream(
    stack: Stack, fields: dict[str, object]
) -> None:
    body = {"message": "one", **fields}

    answer = httpx2.post(f"{stack.url}/api/v1/chat/stream", json=body)

    assert answer.status_code == 422
    assert check_shape(answer)["param"] == next(iter(fields))


def test_who_leaves_cancels_the_answer(database: Database, wake_ups: WakeUps) -> None:
    """Without a worker, so that it cannot be done before."""
    app = create_app(replace(CONFIG, leave_grace=0.1), database, wake_ups)
    with serving(app) as url, httpx2.Client(base_url=url) as client:
        with client.stream("POST", "/api/v1/chat/stream", json={"message": "one"}) as answer:
            request_id = next(read_events(answer.iter_lines())).data["request_id"]

        until("it is cancelled", lambda: _status(database, request_id) is BatchStatus.CANCELLING)


def _status(database: Database, request_id: str) -> BatchStatus | None:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, request_id)
    return batch.status if batch else None
