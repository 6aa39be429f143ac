"""Answers as they finish, and replies as they are written: pushed, cut, taken up again, polled."""

from __future__ import annotations

import json

import pytest

from penstock.client import Answer, Client
from penstock.errors import ModelError, Overloaded, Unavailable
from tests.support.service import Service, problem


def event(data: object, *, id: str = "", name: str = "") -> str:
    lines = [f"event: {name}"] if name else []
    lines += [f"id: {id}"] if id else []
    return "\n".join([*lines, f"data: {json.dumps(data, ensure_ascii=False)}", "", ""])


def result(index: int, text: str) -> str:
    return event({"index": index, "response": text}, id=f"1-{index}", name="result")


def chat(kind: str, content: str = "", *, id: str = "", **more: object) -> str:
    return event({"type": kind, "content": content, "message_id": "chat_1", **more}, id=id)


def paths(service: Service) -> list[str]:
    return [seen.path for seen in service.seen]


def test_answers_come_as_they_finish_each_once_where_nothing_is_pushed(
    service: Service, client: Client
) -> None:
    job = client.submit(["a", "fail", "c"])

    answers = list(job.as_finished())

    assert answers == [
        Answer(0, "echo: a"),
        Answer(1, None, "engine_error", "It failed."),
        Answer(2, "echo: c"),
    ]
    assert paths(service).count(f"/batch-result/{job.id}/events") == 1


def test_what_has_arrived_is_told_once_without_waiting_for_the_rest(
    service: Service, client: Client
) -> None:
    service.hold = True
    job = client.submit(["a", "b"])

    before = list(job.arrived())
    service.finish()
    then = [answer.index for answer in job.arrived()]

    assert (before, then) == ([], [0, 1])
    assert list(job.arrived()) == []


def test_pushed_answers_come_first_and_what_the_stream_left_out_is_read(
    service: Service, client: Client
) -> None:
    job = client.submit(["a", "b", "c"])
    pings = event({"total": 3, "completed": 1, "failed": 0}, name="progress") + ": ping\n\n"
    service.streams.append(pings + result(2, "echo: c") + result(2, "echo: c") + result(1, ""))

    answers = list(job.as_finished())

    assert [(answer.index, answer.text) for answer in answers] == [
        (2, "echo: c"),
        (1, ""),
        (0, "echo: a"),
    ]


def test_pushed_answers_have_their_tokens(service: Service, client: Client) -> None:
    job = client.submit(["a", "b"])
    tokens = {"prompt_tokens": 7, "completion_tokens": 1}
    failed = {"index": 1, "response": None, "error": {"code": "too_long", "message": "So long."}}
    service.streams.append(
        event({"index": 0, "response": "x", **tokens, "from_cache": True}, name="result")
        + event({**failed, **tokens}, name="result")
    )

    answers = list(job.as_finished())

    assert [(answer.tokens, answer.reused) for answer in answers] == [
        ((7, 1), True),
        ((7, 1), False),
    ]


def test_a_stream_that_was_cut_is_gone_on_with(service: Service, client: Client) -> None:
    service.hold = True
    job = client.submit(["a", "b"])
    service.streams.extend([result(0, "echo: a"), result(1, "echo: b")])
    answers = []

    for answer in job.as_finished():
        answers.append(answer.index)
        if len(answers) == 2:
            service.finish()

    assert answers == [0, 1]
    marks = [s.headers.get("last-event-id") for s in service.seen if s.path.endswith("/events")]
    assert marks == [None, "1-0"]


def test_waiting_for_answers_has_a_limit(service: Service, client: Client) -> None:
    service.hold = True

    with pytest.raises(TimeoutError, match="batch_1 did not end"):
        list(client.submit(["a"]).as_finished(timeout=0.05))


def test_a_page_is_read_only_when_it_is_wanted(service: Service, client: Client) -> None:
    job = client.submit([str(number) for number in range(10)])

    next(job.results(page=2))

    assert [seen.query["offset"] for seen in service.seen[1:]] == ["0"]


def test_answers_as_a_list_wait_for_the_end(client: Client) -> None:
    assert [answer.text for answer in client.submit(["a", "b"]).answers()] == ["echo: a", "echo: b"]


def test_a_reply_comes_in_pieces_with_its_conversation(service: Service, client: Client) -> None:
    service.streams.append(
        chat("start", id="0", conversation_id="conv_1", request_id="chat_9")
        + chat("thinking", "hm", id="1")
        + chat("chunk", "one\u2028", id="2")
        + event({"type": "of the future"})
        + chat("chunk", "two", id="3")
        + chat("end", id="end", tokens_generated=2)
    )

    with client.chat_stream("hello") as stream:
        pieces = list(stream)

    assert pieces == ["one\u2028", "two"]
    assert stream.reply.text == "one\u2028two"
    assert (stream.reply.conversation_id, stream.reply.request_id) == ("conv_1", "chat_9")
    assert stream.reply.tokens_generated == 2
    assert paths(service) == ["/chat/stream"]


def test_an_event_may_be_large(service: Service, client: Client) -> None:
    text = "one two " * 250_000
    service.streams.append(chat("chunk", text) + chat("end", id="end"))

    assert "".join(client.chat_stream("hello")) == text


def test_a_reply_that_broke_off_is_taken_up_under_its_key(service: Service, client: Client) -> None:
    service.streams.extend(
        [
            chat("start", id="0") + chat("chunk", "one ", id="7"),
            chat("chunk", "two", id="8") + chat("end", id="end"),
        ]
    )

    assert "".join(client.chat_stream("hello")) == "one two"

    first, second = service.seen
    assert second.headers["last-event-id"] == "7"
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_a_stream_that_never_begins_is_an_error_within_the_limit(service: Service) -> None:
    service.streams.append("")
    with Client(service.url, retry_for=0) as client, pytest.raises(Unavailable, match="broke off"):
        list(client.chat_stream("hello"))


def test_a_busy_service_is_asked_again_before_the_reply_begins(
    service: Service, client: Client
) -> None:
    service.faults.append(problem(429, "overloaded", "Slow down.", Retry_After="0"))
    service.streams.append(chat("chunk", "one") + chat("end"))

    assert list(client.chat_stream("hello")) == ["one"]
    assert len({seen.headers["idempotency-key"] for seen in service.seen}) == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("engine_error", ModelError), ("overloaded", Overloaded)]
)
def test_an_error_in_the_stream_is_raised_as_what_it_is(
    service: Service, client: Client, code: str, kind: type[Exception]
) -> None:
    service.streams.append(chat("chunk", "one") + chat("error", "It failed.", code=code))
    pieces = client.chat_stream("hello")

    with pytest.raises(kind, match=r"It failed\."):
        list(pieces)

    assert pieces.reply.text == "one"


def test_leaving_a_reply_cancels_the_rest(service: Service, client: Client) -> None:
    service.streams.append(chat("start", request_id="batch_1") + chat("chunk", "one"))
    service.hold = True
    client.submit(["stands for the chat"])

    with client.chat_stream("hello") as stream:
        assert next(iter(stream)) == "one"

    assert paths(service)[-1] == "/batch-generate/batch_1/cancel"


def test_a_service_without_streams_answers_in_one_piece(service: Service, client: Client) -> None:
    stream = client.chat_stream("hello")

    assert list(stream) == ["echo: hello"]
    assert (stream.reply.streamed, stream.reply.conversation_id) == (False, "conv_1")


def test_conversations_are_listed_read_and_forgotten(service: Service, client: Client) -> None:
    [summary] = client.conversations()
    [message] = client.conversation(summary.conversation_id).messages
    client.delete_conversation(summary.conversation_id)

    assert (message.role, message.content) == ("user", "hello")
    assert [seen.method for seen in service.seen] == ["GET", "GET", "DELETE"]
