"""`Client`: the SDK for programs that block. What it asks is in `service.py` and `jobs.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from penstock.client.answers import Answer
from penstock.client.blocking import iterate, run
from penstock.client.body import Message
from penstock.client.call import checked_url, key_headers
from penstock.client.connection import Connection, OnRetry
from penstock.client.conversations import Conversation, ConversationSummary
from penstock.client.jobs import DAY, PAGE, POLL, JobCalls, OnProgress
from penstock.client.network import BlockingNetwork
from penstock.client.service import ServiceCalls
from penstock.client.talk import Reply, Talk
from penstock.schemas.batch import BatchResult, JobSummary
from penstock.schemas.chat import ChatAnswer
from penstock.schemas.health import Stats

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """A running service. Thread-safe; close it, or use it in a `with` block.

    A service that is away is tried again for `retry_for` seconds, wherever a repetition cannot do
    harm; `on_retry` is told the error and the pause. `timeout` (seconds) is of one request.

        with Client() as client:
            job = client.submit(["Say hello.", "Say goodbye."], max_tokens=20)
            for answer in job.as_finished():
                print(answer.index, answer.text or answer.message)
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        on_retry: OnRetry | None = None,
    ) -> None:
        url = checked_url(base_url)
        network = BlockingNetwork(url, key_headers(api_key))
        self._calls = ServiceCalls(Connection(network, url, retry_for, on_retry), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Jobs go on."""
        run(self._calls.close())

    def submit(
        self, messages: Iterable[Message], *, idempotency_key: str | None = None, **fields: object
    ) -> Job:
        """Post one job and return when it is durable. `fields` as in `POST /batch-generate`.

        `messages` is streamed, never held in memory. The same `idempotency_key` with the same
        body gives the same job, so that repeating this call after a failure makes no second one.
        """
        calls, replayed = run(self._calls.submit(messages, idempotency_key, fields))
        return Job(calls, replayed=replayed)

    def job(self, request_id: str) -> Job:
        """A job posted before. Asks nothing of the service."""
        return Job(self._calls.job(request_id))

    def jobs(self, *, limit: int = 50) -> list[JobSummary]:
        """Jobs, newest first."""
        return run(self._calls.jobs(limit))

    def chat(self, message: str, **fields: object) -> ChatAnswer:
        """Say one thing and wait for the reply. `fields` as in `POST /chat`; its
        `conversation_id` goes on with a conversation.

            reply = client.chat("My name is Ada.")
            client.chat("What is my name?", conversation_id=reply.conversation_id)
        """
        return run(self._calls.chat(message, fields))

    def chat_stream(self, message: str, **fields: object) -> ChatStream:
        """Say one thing and read the reply as it is written; `fields` as for `chat`.

        with client.chat_stream("Tell me a story.") as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
        """
        return ChatStream(self._calls.talk(message, fields))

    def conversations(self, *, limit: int = 50) -> list[ConversationSummary]:
        """Those that are kept, the last used first."""
        return run(self._calls.conversations(limit))

    def conversation(self, conversation_id: str, *, limit: int = 100) -> Conversation:
        """Its messages, of so many turns at most. Raises NotFound."""
        return run(self._calls.conversation(conversation_id, limit))

    def delete_conversation(self, conversation_id: str) -> None:
        """Forget it. Raises NotFound."""
        run(self._calls.delete_conversation(conversation_id))

    def stats(self) -> Stats:
        """The service in figures."""
        return run(self._calls.stats())

    def ping(self) -> None:
        """Raise Unavailable at once when no service answers."""
        run(self._calls.ping())


class Job:
    """A job that the service accepted. Made by `Client.submit` and `Client.job`."""

    def __init__(self, calls: JobCalls, *, replayed: bool = False) -> None:
        self.id = calls.id
        self.replayed = replayed  #: an earlier post with the same key had made it
        self._calls = calls

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self, *, wait: float = 0) -> BatchResult:
        """The progress so far, without answers. `wait`: seconds (at most 60) to hold the request
        for the job's end. Survives an outage of the service as long as the client retries."""
        return run(self._calls.status(wait))

    def wait(
        self,
        timeout: float = DAY,
        *,
        poll: float = POLL,
        progress: bool = True,
        on_progress: OnProgress | None = None,
    ) -> BatchResult:
        """Block until the job ends, however it ends. TimeoutError after `timeout` seconds.

        With `progress` a bar is shown at a terminal and in a notebook that has tqdm.
        """
        return run(self._calls.wait(timeout, poll, progress, on_progress))

    def results(self, *, page: int = PAGE) -> Iterator[Answer]:
        """Every answer in input order, read page by page. For a job that has ended."""
        return iterate(self._calls.results(page))

    def arrived(self) -> Iterator[Answer]:
        """The answers that came since the last call, in input order; waits for none. By the first
        call, all that there are."""
        return iterate(self._calls.arrived())

    def as_finished(self, timeout: float = DAY) -> Iterator[Answer]:
        """Every answer as soon as it is there, until the job ends. Keeps none in memory."""
        return iterate(self._calls.as_finished(timeout))

    def answers(
        self, timeout: float = DAY, *, poll: float = POLL, progress: bool = True
    ) -> list[Answer]:
        """Wait for the end, then every answer in input order, as a list."""
        return run(self._calls.answers(timeout, poll, progress))

    def cancel(self) -> BatchResult:
        """Stop the job; what has an answer keeps it. Repeating it changes nothing."""
        return run(self._calls.cancel())

    def retry_failed(self) -> BatchResult:
        """Run the failed prompts of an ended job again. Raises Conflict while it still runs."""
        return run(self._calls.retry_failed())


class ChatStream:
    """The pieces of one reply. Leaving it before its end cancels the rest."""

    def __init__(self, talk: Talk) -> None:
        self.reply: Reply = talk.reply  #: what is known so far: its text, its conversation
        self._pieces = iterate(talk.pieces())

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read no further."""
        self._pieces.close()
