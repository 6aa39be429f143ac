"""A reply as it is written: the events of `POST /chat/stream`, taken up again when they break off.

Knows the events; does not know whether the network blocks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

from penstock.client.call import Call, Repeat
from penstock.client.connection import Connection
from penstock.client.problem import named_error
from penstock.client.retries import Failure
from penstock.errors import NotFound, PenstockError, Unavailable
from penstock.schemas.chat import ChatAnswer

CANCEL_TIMEOUT = 5.0  # seconds


@dataclass(slots=True)
class Reply:
    """What is known of a reply so far; `text` is whole once `ended`."""

    text: str = ""
    request_id: str | None = None
    conversation_id: str | None = None
    tokens_generated: int | None = None
    ended: bool = False
    streamed: bool = True  #: False: the service has no streams, and the reply came in one piece


class _Event(BaseModel):
    type: str
    content: str | None = None
    code: str | None = None
    message_id: str | None = None
    request_id: str | None = None
    conversation_id: str | None = None
    tokens_generated: int | None = None


class Talk:
    """One message, and the reply in pieces."""

    def __init__(self, connection: Connection, body: Mapping[str, object], call: Call) -> None:
        self.reply = Reply()
        self._connection = connection
        self._body = body
        self._call = call
        self._last_event = ""

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Texts in order. Raises what the service says of the reply, and Unavailable when it broke
        off and could not be taken up again. Left early, it cancels the rest."""
        patience = self._connection.patience()
        try:
            while not self.reply.ended:
                async with aclosing(self._once()) as pieces:
                    async for piece in pieces:
                        patience.renew()
                        self.reply.text += piece
                        yield piece
                if not self.reply.ended:
                    broken = Unavailable("The reply broke off.")
                    await self._connection.pause(patience, Failure(broken, bool(self._last_event)))
        except GeneratorExit:
            await self._cancel()
            raise

    async def _once(self) -> AsyncGenerator[str, None]:
        """One connection's pieces."""
        headers = {**self._call.headers, "Accept": "text/event-stream"}
        if self._last_event:
            headers["Last-Event-ID"] = self._last_event
        call = replace(self._call, path="/chat/stream", json=self._body, headers=headers)
        try:
            async with aclosing(self._connection.events(call)) as events:
                async for event in events:
                    self._last_event = event.id or self._last_event
                    piece = self._read(event.data)
                    if piece:
                        yield piece
                    if self.reply.ended:
                        return
        except NotFound:
            if self._last_event:
                raise
            yield await self._whole()  # a service without streams

    def _read(self, data: str) -> str:
        try:
            event = _Event.model_validate_json(data)
        except ValidationError:
            return ""  # of a kind that is not known here
        reply = self.reply
        reply.request_id = event.request_id or reply.request_id or event.message_id
        reply.conversation_id = event.conversation_id or reply.conversation_id
        reply.tokens_generated = event.tokens_generated or reply.tokens_generated
        if event.type == "error":
            raise named_error(event.code, event.content or "The reply failed.")
        reply.ended = event.type == "end"
        return event.content or "" if event.type == "chunk" else ""

    async def _whole(self) -> str:
        body = {**self._body, "wait": True}
        call = replace(self._call, path="/chat", json=body)
        answer = await self._connection.fetch(call, ChatAnswer)
        self.reply.request_id = answer.request_id
        self.reply.conversation_id = answer.conversation_id
        self.reply.tokens_generated = answer.tokens_generated
        self.reply.ended, self.reply.streamed = True, False
        return answer.response

    async def _cancel(self) -> None:
        """Nobody reads the rest. Best effort; the service may have noticed by itself."""
        if self.reply.request_id is None or self.reply.ended:
            return
        path = f"/batch-generate/{self.reply.request_id}/cancel"
        with suppress(PenstockError):
            call = Call("POST", path, Repeat.SAFELY, CANCEL_TIMEOUT)
            await self._connection.send(call, retry_for=0)
