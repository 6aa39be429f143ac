"""What goes wrong is one of the official client's own errors, which it retries or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, select

from api.dependencies import hash_key
from penstock.errors import PromptError
from storage import reading
from storage.database import Database
from storage.quota import Amount, Limits
from storage.states import BatchStatus, Lane
from storage.tables import batches
from tests.contract.completions.conftest import HELLO, Serve, claimed, fail
from tests.contract.support import working
from tests.support import jobs


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_a_bad_request_that_names_the_parameter(
    client: OpenAI, fake: None, stream: bool
) -> None:
    create: Any = client.chat.completions.create
    asked = {"model": jobs.MODEL, "messages": HELLO, "stream": stream}
    tools = [{"type": "function", "function": {"name": "f"}}]
    long = [{"role": "user", "content": "x" * 5_000}]
    wrongs: list[tuple[dict[str, Any], str, str]] = [
        ({"tools": tools}, "tools", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_request"),
        ({"extra_body": {"new": 1}}, "new", "invalid_request"),
        ({"extra_body": {"mode": "count"}}, "mode", "invalid_request"),
        ({"messages": long}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "invalid_request"),
    ]
    for wrong, param, code in wrongs:
        with pytest.raises(openai.BadRequestError) as refused:
            create(**{**asked, **wrong})
        error = refused.value
        assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as unknown:
        create(**{**asked, "model": "gpt-4"})
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")


def test_a_wrong_key_of_repetition_is_a_bad_request_too(client: OpenAI, fake: None) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=jobs.MODEL, messages=HELLO, extra_headers={"Idempotency-Key": "k" * 256}
        )
    assert refused.value.param == "Idempotency-Key"


def test_other_errors_are_the_clients_own_classes_too(serve: Serve) -> None:
    locked = serve(key_hashes=(hash_key("another"),))
    with pytest.raises(openai.AuthenticationError) as unknown:
        locked.chat.completions.create(model=jobs.MODEL, messages=HELLO)
    assert unknown.value.code == "invalid_api_key"
    malformed = httpx2.post(
        f"{serve().base_url}completions", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert (malformed.status_code, malformed.json()["error"]["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_does_not_come_is_given_up(
    serve: Serve, database: Database, stream: bool
) -> None:
    client: Any = serve(chat_timeout=0.1)

    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(model=jobs.MODEL, messages=HELLO, stream=stream)

    assert (late.value.status_code, late.value.code) == (503, "timeout")
    assert int(late.value.response.headers["Retry-After"]) > 0
    with database.begin() as conn:
        left = reading.get_batch(conn, jobs.OWNER, late.value.response.json()["request_id"])
    assert left is not None
    assert left.status is BatchStatus.CANCELLING


@pytest.mark.parametrize(("own", "status"), [(True, 429), (False, 503)])
def test_the_client_comes_back_by_itself_when_there_is_room(
    serve: Serve, database: Database, own: bool, status: int
) -> None:
    one, many = Amount(1, 9, 10_000), Amount(9, 9, 10_000)
    jobs.store(database, 2, lane=Lane.EXPRESS, kind="chat")
    shard = claimed(database)
    jobs.commit(database, shard, [0])
    answers: list[int] = []

    with ExitStack() as working_later:

        def seen(answer: httpx2.Response) -> None:
            answers.append(answer.status_code)
            if answer.status_code == status:
                # From the rate of work so far. The client waits no longer than a minute for it.
                assert 0 < int(answer.headers["Retry-After"]) <= 60
                jobs.commit(database, shard, [1])
                working_later.enter_context(working(database))

        limits = {Lane.EXPRESS: Limits(one, many) if own else Limits(many, one)}
        client = serve(retries=1, seen=seen, limits=limits)
        answer = client.chat.completions.create(model=jobs.MODEL, messages=HELLO)

    assert answer.choices[0].message.content == "answer 0"
    assert answers == [status, 200]


def test_a_full_queue_is_a_rate_limit_error(serve: Serve, database: Database) -> None:
    one = Amount(1, 1, 10_000)
    client = serve(limits={Lane.EXPRESS: Limits(one, one)})
    jobs.store(database, lane=Lane.EXPRESS, kind="chat")

    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(model=jobs.MODEL, prompt="a")
    assert refused.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (PromptError.POISON, openai.InternalServerError),
        (PromptError.CANCELLED, openai.ConflictError),
    ],
)
def test_a_prompt_that_would_only_fail_again_is_not_sent_again(
    serve: Serve, database: Database, code: PromptError, error: type[openai.APIStatusError]
) -> None:
    client = serve(retries=2)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.completions.create, model=jobs.MODEL, prompt="a")
        fail(database, claimed(database), code)
        with pytest.raises(error) as failed:
            asked.result(timeout=20)

    assert (failed.value.code, failed.value.param) == (code, None)
    with database.begin() as conn:
        assert conn.execute(select(func.count()).select_from(batches)).scalar_one() == 1
