"""What can be asked of a service, for both clients. Knows routes and bodies, not transport."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from uuid_utils import uuid7

from penstock.client.body import BodySource, Message, encoded, spooled
from penstock.client.call import Call, Repeat
from penstock.client.connection import Connection, read
from penstock.client.conversations import Conversation, ConversationList, ConversationSummary
from penstock.client.jobs import JobCalls
from penstock.client.talk import Talk
from penstock.errors import InvalidRequest
from penstock.schemas.batch import Accepted, BatchFields, JobList, JobSummary
from penstock.schemas.chat import ChatAnswer, ChatRequest
from penstock.schemas.health import Stats

CHAT_TIMEOUT = 150.0  # seconds; the service itself gives up earlier
STORE_TIMEOUT = 120.0  # seconds from the end of an upload to its acceptance

Fields = TypeVar("Fields", bound=BaseModel)


class ServiceCalls:
    """The requests that concern no job of before. `timeout` in seconds, of one request."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def submit(
        self, messages: Iterable[Message], key: str | None, fields: dict[str, object]
    ) -> tuple[JobCalls, bool]:
        """The job, and whether an earlier post with the same key had made it."""
        if isinstance(messages, str):
            raise InvalidRequest("messages has to be a list of prompts.", param="messages")
        head = _dump(_checked(BatchFields, fields))
        timeout = max(self._timeout, STORE_TIMEOUT)
        if iter(messages) is not messages:
            response = await self._connection.send(_post(encoded(head, messages), key, timeout))
        else:
            # What can be read only once goes through a file, so that it can be sent again.
            body, spool = await self._connection.network.aside(lambda: spooled(head, messages))
            with spool:
                response = await self._connection.send(_post(body, key, timeout))
        accepted = read(response, Accepted)
        return self.job(accepted.request_id), response.headers.get("Idempotent-Replayed") == "true"

    def job(self, request_id: str) -> JobCalls:
        return JobCalls(self._connection, request_id, self._timeout)

    async def jobs(self, limit: int) -> list[JobSummary]:
        return (await self._connection.fetch(self._get("/batch-generate", limit), JobList)).data

    async def chat(self, message: str, fields: dict[str, object]) -> ChatAnswer:
        body = _chat_body(message, fields)
        return await self._connection.fetch(_say(body), ChatAnswer)

    def talk(self, message: str, fields: dict[str, object]) -> Talk:
        body = _chat_body(message, fields)
        return Talk(self._connection, body, _say(body))

    async def conversations(self, limit: int) -> list[ConversationSummary]:
        call = self._get("/conversations", limit)
        return (await self._connection.fetch(call, ConversationList)).data

    async def conversation(self, conversation_id: str, limit: int) -> Conversation:
        call = self._get(_conversation_path(conversation_id), limit)
        return await self._connection.fetch(call, Conversation)

    async def delete_conversation(self, conversation_id: str) -> None:
        # Not repeated once it may have arrived: the second one would find nothing.
        path = _conversation_path(conversation_id)
        await self._connection.send(Call("DELETE", path, Repeat.IF_UNSENT, self._timeout))

    async def stats(self) -> Stats:
        return await self._connection.fetch(self._get("/stats"), Stats)

    async def ping(self) -> None:
        await self._connection.send(self._get("/healthz"), retry_for=0)

    async def close(self) -> None:
        await self._connection.network.close()

    def _get(self, path: str, limit: int | None = None) -> Call:
        params = {} if limit is None else {"limit": limit}
        return Call("GET", path, Repeat.SAFELY, self._timeout, params=params)


def _conversation_path(conversation_id: str) -> str:
    return f"/conversations/{quote(conversation_id, safe='')}"


def _post(body: BodySource, key: str | None, timeout: float) -> Call:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid7().hex}
    return Call(
        "POST", "/batch-generate", Repeat.SAFELY, timeout, body=body, headers=headers, keyed=True
    )


def _say(body: dict[str, object]) -> Call:
    # The key makes it safe to repeat: the same message is not said twice.
    key = {"Idempotency-Key": uuid7().hex}
    return Call("POST", "/chat", Repeat.SAFELY, CHAT_TIMEOUT, json=body, headers=key, keyed=True)


def _chat_body(message: str, fields: dict[str, object]) -> dict[str, object]:
    given = {name: value for name, value in fields.items() if value is not None}
    return _dump(_checked(ChatRequest, {**given, "message": message, "wait": True}))


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
