"""Streamed completions by the official client, and by many at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from redis import Redis

from models.loader import LoadOptions, load
from penstock.errors import PromptError
from storage import reading
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import BatchStatus
from tests.contract.completions.conftest import HELLO, PREFIX, Serve, claimed, fail
from tests.contract.support import until
from tests.support import jobs
from tests.support.engine import answering
from workers.pieces import Piece, client_url, encode, stream_key

TINY = Path(__file__).parents[3] / "assets" / "penstock-tiny"
TINY_OPTIONS = LoadOptions(str(TINY), device="cpu", kv_tokens=4_096, max_rows=4)


def test_a_stream_of_a_chat_is_its_text_in_pieces(client: OpenAI, fake: None) -> None:
    chunks = list(
        client.chat.completions.create(
            model=jobs.MODEL,
            messages=HELLO,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
        )
    )

    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *said, last = chunks
    deltas = [chunk.choices[0].delta for chunk in said]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert "".join(delta.content or "" for delta in deltas) == "echo: hello there"
    assert [chunk.choices[0].finish_reason for chunk in said[:-1]] == [None] * (len(said) - 1)
    end = said[-1].choices[0]
    assert end.finish_reason == "stop"
    assert end.logprobs is not None
    assert len(end.logprobs.content or ()) == 3
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_the_clients_own_reader_puts_a_stream_together(client: OpenAI, fake: None) -> None:
    with client.chat.completions.stream(
        model=jobs.MODEL, messages=HELLO, temperature=0, logprobs=True
    ) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.choices[0].message.content == "echo: hello there"
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.content or ()) == 3


def test_a_stream_of_a_text_ends_with_its_reason(client: OpenAI, fake: None) -> None:
    chunks = list(
        client.completions.create(
            model=jobs.MODEL, prompt="once upon", temperature=0, stream=True, logprobs=1
        )
    )

    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert "".join(chunk.choices[0].text for chunk in chunks) == "echo: once upon"
    end = chunks[-1].choices[0]
    assert end.finish_reason == "stop"
    assert end.logprobs is not None
    assert end.logprobs.tokens == ["echo:", " once", " upon"]


def test_the_asynchronous_client_has_many_answers_at_once_whole_and_in_pieces(
    serve: Serve, fake: None
) -> None:
    url = str(serve().base_url)

    async def one(client: AsyncOpenAI, number: int) -> str:
        asked: Any = {
            "model": jobs.MODEL,
            "messages": [{"role": "user", "content": f"number {number}"}],
            "temperature": 0,
        }
        if number % 2:
            whole = await client.chat.completions.create(**asked)
            return str(whole.choices[0].message.content)
        stream = await client.chat.completions.create(**asked, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            with pytest.raises(openai.BadRequestError):
                await client.completions.create(model=jobs.MODEL, prompt="a", echo=True)
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    assert asyncio.run(all_of_them()) == [f"echo: number {number}" for number in range(8)]


def publish(redis_url: str, shard: ClaimedShard, text: str) -> None:
    """The beginning of an answer, as a worker would."""
    with Redis.from_url(client_url(redis_url)) as redis:
        piece = encode(Piece((shard.id, shard.epoch), 0, text))
        redis.xadd(stream_key(PREFIX, shard.batch_id), dict(piece))


def test_what_goes_wrong_in_the_middle_is_an_error_of_the_stream(
    client: OpenAI, database: Database, redis_url: str
) -> None:
    got: list[str | None] = []

    def read() -> None:
        for chunk in client.chat.completions.create(model=jobs.MODEL, messages=HELLO, stream=True):
            got.append(chunk.choices[0].delta.content)

    with ThreadPoolExecutor(1) as pool:
        reading_it = pool.submit(read)
        shard = claimed(database)
        publish(redis_url, shard, "half")
        until(lambda: "half" in got or None)
        fail(database, shard, PromptError.ENGINE)
        with pytest.raises(openai.APIError) as failed:
            reading_it.result(timeout=20)

    assert (failed.value.code, failed.value.type) == ("engine_error", "server_error")
    assert got == ["", "half"]


def test_a_client_that_leaves_a_stream_cancels_it(
    client: OpenAI, database: Database, redis_url: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(client.completions.create, model=jobs.MODEL, prompt="a", stream=True)
        shard = claimed(database)
        publish(redis_url, shard, "half")
        stream = opening.result(timeout=20)
        assert next(stream).choices[0].text == "half"
        stream.close()

    def cancelling() -> bool | None:
        with database.begin() as conn:
            batch = reading.get_batch(conn, jobs.OWNER, shard.batch_id)
        return (batch is not None and batch.status is BatchStatus.CANCELLING) or None

    assert until(cancelling)


def test_a_real_model_says_the_same_whole_and_in_pieces(
    client: OpenAI, database: Database, redis_url: str
) -> None:
    ask: Any = client.completions.create
    asked = {"model": jobs.MODEL, "prompt": "Return the", "temperature": 0, "max_tokens": 8}
    with answering(database, redis_url, PREFIX, load(TINY_OPTIONS)):
        whole = ask(**asked, logprobs=2).choices[0]
        pieces = [chunk.choices[0].text for chunk in ask(**asked, stream=True)]

    assert whole.text == "".join(whole.logprobs.tokens) == "".join(pieces)
    assert len(pieces) > 2
    for token, logprob, best in zip(
        whole.logprobs.tokens,
        whole.logprobs.token_logprobs,
        whole.logprobs.top_logprobs,
        strict=True,
    ):
        assert best[token] == logprob == max(best.values())
