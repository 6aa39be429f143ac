"""Completions by the official client: what is answered, stored and told beside a text."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from storage import fleet, reading
from storage.database import Database
from storage.records import RAW
from storage.states import Lane
from tests.contract.completions.conftest import HELLO, Serve
from tests.support import jobs


def test_a_chat_is_answered_and_stored(client: OpenAI, database: Database, fake: None) -> None:
    system: Any = {"role": "developer", "content": "be brief"}
    answer = client.chat.completions.create(
        model=jobs.MODEL, messages=[system, *HELLO], metadata={"a": "b"}
    )

    assert (answer.object, answer.model) == ("chat.completion", jobs.MODEL)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert (choice.message.content, choice.finish_reason) == ("echo: hello there", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3
    assert answer._request_id
    with database.begin() as conn:
        stored = reading.get_batch(conn, jobs.OWNER, answer.id)
    assert stored is not None
    assert (stored.kind, stored.lane, stored.metadata) == ("chat", Lane.EXPRESS, {"a": "b"})
    assert int(stored.created_at.timestamp()) == answer.created


class City(BaseModel):
    name: str


def test_what_is_asked_beside_a_text_is_there(client: OpenAI, fake: None) -> None:
    create = client.chat.completions.create

    several = create(
        model=jobs.MODEL, messages=HELLO, n=2, seed=3, logprobs=True, top_logprobs=1, stop=" zzz"
    )
    assert [choice.index for choice in several.choices] == [0, 1]
    for choice in several.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert "".join(one.token for one in choice.logprobs.content) == choice.message.content
        assert all(one.top_logprobs[0].token == one.token for one in choice.logprobs.content)
    labels = create(
        model=jobs.MODEL,
        messages=HELLO,
        extra_body={"mode": "score", "choices": ["good", "bad"]},
    )
    assert labels.choices[0].message.content == "bad"
    probabilities: Any = labels.choices[0].to_dict()["probabilities"]
    assert probabilities["bad"] > probabilities["good"]
    parsed = client.chat.completions.parse(model=jobs.MODEL, messages=HELLO, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_a_text_goes_on_without_a_template(
    client: OpenAI, database: Database, worker: None
) -> None:
    answer = client.completions.create(model=jobs.MODEL, prompt="once upon")

    assert (answer.object, answer.choices[0].text) == ("text_completion", "answer 0")
    assert answer.choices[0].finish_reason == "stop"
    with database.begin() as conn:
        assert conn.exec_driver_sql("SELECT messages FROM requests").scalar_one() == [
            [RAW, "once upon"]
        ]


def test_a_repeated_request_with_one_key_is_one_completion(client: OpenAI, fake: None) -> None:
    def ask(text: str) -> Any:
        return client.chat.completions.create(
            model=jobs.MODEL,
            messages=[{"role": "user", "content": text}],
            extra_headers={"Idempotency-Key": "k"},
        )

    first = ask("hello")
    assert ask("hello").to_dict() == first.to_dict()
    with pytest.raises(openai.BadRequestError) as refused:
        ask("bye")
    assert refused.value.code == "idempotency_mismatch"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(
            model=jobs.MODEL, prompt="hello", extra_headers={"Idempotency-Key": "k"}
        )


def test_models_are_the_configured_one_and_those_of_live_workers(
    serve: Serve, database: Database
) -> None:
    client = serve(model="org/configured")
    with database.begin() as conn:
        fleet.register(conn, "slot-1", "boot-1", jobs.MODEL, {})

    assert [model.id for model in client.models.list()] == ["org/configured", jobs.MODEL]
    model = client.models.retrieve("org/configured")
    assert (model.id, model.object, model.owned_by) == ("org/configured", "model", "penstock")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("gpt-4")
    assert unknown.value.code == "model_not_found"
