"""The client of an event loop: the same calls, the same core, none of them blocking."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from penstock.client import AsyncChatStream, AsyncClient, AsyncJob, ChatStream, Client, Job
from penstock.errors import NotFound
from penstock.schemas.batch import JobStatus
from tests.support.service import Service, problem
from tests.unit.client.test_streams import chat, result


def public(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(value).parameters)
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(
    ("blocking", "awaiting"),
    [(Client, AsyncClient), (Job, AsyncJob), (ChatStream, AsyncChatStream)],
)
def test_both_clients_have_the_same_calls(blocking: type, awaiting: type) -> None:
    assert public(blocking) == public(awaiting)


def test_a_job_from_its_post_to_its_answers(service: Service) -> None:
    def once() -> Iterator[str]:
        yield from ["a", "fail", "c"]

    async def go() -> None:
        async with AsyncClient(service.url, "secret") as client:
            service.faults.append(problem(503, "overloaded", "Too much work.", Retry_After="0"))
            job = await client.submit(once(), max_tokens=3, idempotency_key="k")
            end = await job.wait(30)
            assert end.status is JobStatus.COMPLETED
            assert [answer.text async for answer in job.results(page=2)] == [
                "echo: a",
                None,
                "echo: c",
            ]
            service.streams.append(result(2, "echo: c"))
            assert [answer.index async for answer in job.as_finished()] == [2, 0, 1]
            assert [answer.index for answer in await job.answers()] == [0, 1, 2]
            assert (await client.job(job.id).cancel()).status is JobStatus.COMPLETED
            assert (await client.submit(once(), max_tokens=3, idempotency_key="k")).replayed

    asyncio.run(go())

    assert service.jobs["batch_1"].fields == {"max_tokens": 3}
    assert len(service.jobs) == 1
    assert {seen.headers["authorization"] for seen in service.seen} == {"Bearer secret"}


def test_many_chats_at_once_and_one_in_pieces(service: Service) -> None:
    service.streams.append(chat("chunk", "one ") + chat("chunk", "two") + chat("end"))

    async def go() -> None:
        async with AsyncClient(service.url) as client:
            async with client.chat_stream("hello") as stream:
                assert [piece async for piece in stream] == ["one ", "two"]
            replies = await asyncio.gather(*(client.chat(f"n{n}") for n in range(20)))
            assert [reply.response for reply in replies] == [f"echo: n{n}" for n in range(20)]
            with pytest.raises(NotFound):
                await client.job("batch_none").status()

    asyncio.run(go())


def test_the_blocking_client_works_where_a_loop_runs_as_in_a_notebook(service: Service) -> None:
    async def cell() -> list[str | None]:
        with Client(service.url) as client:
            return [answer.text for answer in client.submit(["a"]).as_finished()]

    assert asyncio.run(cell()) == ["echo: a"]
