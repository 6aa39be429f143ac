"""`Penstock`, the entry to the SDK. Knows routes and bodies, not transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel, ValidationError
from uuid_utils import uuid7

from penstock.client.body import Message, replayable
from penstock.client.connection import Call, Connection, Repeat, read
from penstock.client.job import Job
from penstock.errors import InvalidRequest, PenstockError
from penstock.schemas.batch import Accepted, BatchFields, JobList, JobSummary
from penstock.schemas.chat import ChatAnswer, ChatRequest
from penstock.schemas.health import Stats

DEFAULT_URL = "http://127.0.0.1:8000"
CHAT_TIMEOUT = 150.0  # seconds; the service itself gives up earlier
STORE_TIMEOUT = 120.0  # seconds from the end of an upload to its acceptance

Fields = TypeVar("Fields", bound=BaseModel)


class Penstock:
    """A running service. Thread-safe; close it, or use it in a `with` block.

    A service that is away is tried again for `retry_for` seconds, wherever a repetition cannot do
    harm; `on_retry` is told the error and the pause. `timeout` (seconds) is of one request.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        on_retry: Callable[[PenstockError, float], None] | None = None,
    ) -> None:
        self._connection = Connection(base_url, api_key, retry_for, on_retry)
        self._timeout = timeout

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
        self._connection.close()

    def batch_generate(
        self, messages: Iterable[Message], *, idempotency_key: str | None = None, **fields: object
    ) -> Job:
        """Post one job and return when it is durable. `fields` as in `POST /batch-generate`.

        `messages` is streamed, never held in memory. The same `idempotency_key` with the same
        body gives the same job, so that repeating this call after a failure makes no second one.
        """
        if isinstance(messages, str):
            raise InvalidRequest("messages has to be a list of prompts.", param="messages")
        checked = _dump(_checked(BatchFields, fields))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key or uuid7().hex,
        }
        with replayable(checked, messages) as body:
            call = Call(
                "POST",
                "/batch-generate",
                Repeat.SAFELY,
                max(self._timeout, STORE_TIMEOUT),
                body=body,
                headers=headers,
                keyed=True,
            )
            response = self._connection.send(call)
        accepted = read(response, Accepted)
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        return Job(self._connection, accepted.request_id, self._timeout, replayed=replayed)

    def job(self, request_id: str) -> Job:
        """A job posted before. Asks nothing of the service."""
        return Job(self._connection, request_id, self._timeout)

    def jobs(self, *, limit: int = 50) -> list[JobSummary]:
        """Jobs, newest first."""
        call = self._get("/batch-generate", limit=limit)
        return self._connection.fetch(call, JobList).data

    def chat(
        self, message: str, *, conversation_id: str | None = None, **fields: object
    ) -> ChatAnswer:
        """Say one thing and wait for the reply. `fields` as in `POST /chat`."""
        given = {**fields, "message": message, "wait": True}
        if conversation_id is not None:
            given["conversation_id"] = conversation_id
        body = _dump(_checked(ChatRequest, given))
        # The key makes it safe to repeat: the same message is not said twice.
        key = {"Idempotency-Key": uuid7().hex}
        call = Call("POST", "/chat", Repeat.SAFELY, CHAT_TIMEOUT, json=body, headers=key)
        return self._connection.fetch(call, ChatAnswer)

    def stats(self) -> Stats:
        """The service in figures."""
        return self._connection.fetch(self._get("/stats"), Stats)

    def ping(self) -> None:
        """Raise Unavailable at once when no service answers."""
        self._connection.send(self._get("/healthz"), retry_for=0)

    def _get(self, path: str, **params: str | int | float) -> Call:
        return Call("GET", path, Repeat.SAFELY, self._timeout, params=params)


def _dump(fields: BaseModel) -> dict[str, object]:
    """What was given, by its names on the wire."""
    return fields.model_dump(mode="json", exclude_unset=True, by_alias=True)


def _checked(model: type[Fields], fields: dict[str, object]) -> Fields:
    """The fields, or InvalidRequest that names the wrong one, before anything is sent."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        sentence = f"{param}: {first['msg']}" if param else first["msg"]
        raise InvalidRequest(sentence, param=param) from None
