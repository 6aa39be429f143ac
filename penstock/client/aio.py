"""`AsyncClient`: the SDK for programs on an event loop; `client.py` with `await`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from penstock.client.answers import Answer
from penstock.client.body import Message
from penstock.client.call import checked_url, key_headers
from penstock.client.client import DEFAULT_URL
from penstock.client.connection import Connection, OnRetry
from penstock.client.conversations import Conversation, ConversationSummary
from penstock.client.jobs import DAY, PAGE, POLL, JobCalls, OnProgress
from penstock.client.network import AsyncNetwork
from penstock.client.service import ServiceCalls
from penstock.client.talk import Reply, Talk
from penstock.schemas.batch import BatchResult, JobSummary
from penstock.schemas.chat import ChatAnswer
from penstock.schemas.health import Stats


class AsyncClient:
    """A running service, for one event loop; arguments and methods are those of `Client`.

    async with AsyncClient() as client:
        job = await client.submit(["Say hello.", "Say goodbye."], max_tokens=20)
        async for answer in job.as_finished():
            print(answer.index, answer.text or answer.message)
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,  # of each request
        retry_for: float = 60.0,
        on_retry: OnRetry | None = None,
    ) -> None:
        url = checked_url(base_url)
        network = AsyncNetwork(url, key_headers(api_key))
        self._calls = ServiceCalls(Connection(network, url, retry_for, on_retry), timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Jobs go on."""
        await self._calls.close()

    async def submit(
        self, messages: Iterable[Message], *, idempotency_key: str | None = None, **fields: object
    ) -> AsyncJob:
        """Post one job and return when it is durable; see `Client.submit`."""
        calls, replayed = await self._calls.submit(messages, idempotency_key, fields)
        return AsyncJob(calls, replayed=replayed)

    def job(self, request_id: str) -> AsyncJob:
        """A job posted before. Asks nothing of the service."""
        return AsyncJob(self._calls.job(request_id))

    async def jobs(self, *, limit: int = 50) -> list[JobSummary]:
        """Jobs, newest first."""
        return await self._calls.jobs(limit)

    async def chat(self, message: str, **fields: object) -> ChatAnswer:
        """Say one thing and wait for the reply; see `Client.chat`."""
        return await self._calls.chat(message, fields)

    def chat_stream(self, message: str, **fields: object) -> AsyncChatStream:
        """Say one thing and read the reply as it is written.

        async with client.chat_stream("Tell me a story.") as pieces:
            async for piece in pieces:
                print(piece, end="", flush=True)
        """
        return AsyncChatStream(self._calls.talk(message, fields))

    async def conversations(self, *, limit: int = 50) -> list[ConversationSummary]:
        """Those that are kept, the last used first."""
        return await self._calls.conversations(limit)

    async def conversation(self, conversation_id: str, *, limit: int = 100) -> Conversation:
        """Its messages, of so many turns at most. Raises NotFound."""
        return await self._calls.conversation(conversation_id, limit)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Forget it. Raises NotFound."""
        await self._calls.delete_conversation(conversation_id)

    async def stats(self) -> Stats:
        """The service in figures."""
        return await self._calls.stats()

    async def ping(self) -> None:
        """Raise Unavailable at once when no service answers."""
        await self._calls.ping()


class AsyncJob:
    """A job that the service accepted; see `Job`."""

    def __init__(self, calls: JobCalls, *, replayed: bool = False) -> None:
        self.id = calls.id
        self.replayed = replayed  #: an earlier post with the same key had made it
        self._calls = calls

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r})"

    async def status(self, *, wait: float = 0) -> BatchResult:
        """The progress so far, without answers; see `Job.status`."""
        return await self._calls.status(wait)

    async def wait(
        self,
        timeout: float = DAY,  # noqa: ASYNC109  # as in `Job`
        *,
        poll: float = POLL,
        progress: bool = True,
        on_progress: OnProgress | None = None,
    ) -> BatchResult:
        """Wait until the job ends, however it ends; see `Job.wait`."""
        return await self._calls.wait(timeout, poll, progress, on_progress)

    def results(self, *, page: int = PAGE) -> AsyncIterator[Answer]:
        """Every answer in input order, read page by page. For a job that has ended."""
        return self._calls.results(page)

    def arrived(self) -> AsyncIterator[Answer]:
        """The answers that came since the last call, in input order; see `Job.arrived`."""
        return self._calls.arrived()

    def as_finished(self, timeout: float = DAY) -> AsyncIterator[Answer]:
        """Every answer as soon as it is there, until the job ends. Keeps none in memory."""
        return self._calls.as_finished(timeout)

    async def answers(
        self,
        timeout: float = DAY,  # noqa: ASYNC109
        *,
        poll: float = POLL,
        progress: bool = True,
    ) -> list[Answer]:
        """Wait for the end, then every answer in input order, as a list."""
        return await self._calls.answers(timeout, poll, progress)

    async def cancel(self) -> BatchResult:
        """Stop the job; what has an answer keeps it. Repeating it changes nothing."""
        return await self._calls.cancel()

    async def retry_failed(self) -> BatchResult:
        """Run the failed prompts of an ended job again. Raises Conflict while it still runs."""
        return await self._calls.retry_failed()


class AsyncChatStream:
    """The pieces of one reply. Leaving it before its end cancels the rest."""

    def __init__(self, talk: Talk) -> None:
        self.reply: Reply = talk.reply  #: what is known so far: its text, its conversation
        self._pieces = talk.pieces()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Read no further."""
        await self._pieces.aclose()
