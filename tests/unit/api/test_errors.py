"""Every error of the project has a status, and nothing in a body can break its encoding."""

from __future__ import annotations

import json

import pytest

from api.errors import ChatFailed, ChatUnanswered, invalid_fields, problem_of, respond
from penstock import errors
from penstock.errors import PenstockError, PromptError

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, PenstockError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status_and_a_code(kind: type[PenstockError]) -> None:
    problem = problem_of(kind())

    assert 400 <= problem.status < 600
    assert problem.code == kind.code
    if kind.retryable:
        assert problem.status in (429, 503)
        assert int(problem.headers["Retry-After"]) > 0


@pytest.mark.parametrize("reason", PromptError)
def test_no_reason_of_a_prompt_is_a_500(reason: PromptError) -> None:
    problem = problem_of(ChatFailed(reason, "why", "chat_1"))

    assert problem.status in (409, 422, 503)
    assert (problem.code, problem.extra) == (reason.value, {"request_id": "chat_1"})


def test_an_unanswered_chat_tells_where_to_look() -> None:
    body = json.loads(bytes(respond(problem_of(ChatUnanswered("chat_1")), "req_1").body))

    assert body["request_id"] == "chat_1"
    assert body["instance"] == "urn:penstock:request:req_1"


def test_a_field_name_of_any_characters_can_be_sent_back() -> None:
    error = invalid_fields(
        [{"loc": ("body", "a\ud800\0" + "x" * 500), "type": "extra_forbidden", "msg": ""}]
    )

    body = json.loads(bytes(respond(problem_of(error), "req_1").body))

    assert body["error"]["param"] == "a\ufffd\ufffd" + "x" * 97 + "…"
