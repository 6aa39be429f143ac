"""One WebSocket: questions one after another, each answered by the events of the contract.

Whose socket it is, each question asks anew: a key may be revoked meanwhile. Knows storage's ways
through `chats`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from api import chats, intake
from api.access_token import stream_owner
from api.body import Hold
from api.dependencies import Parts
from api.errors import ChatFailed, MalformedBody
from api.json_body import parse_object
from api.telling import error_event, tell
from penstock.errors import InvalidRequest, LimitReached, PenstockError, PromptError
from penstock.keys import Scope
from penstock.schemas.socket import SocketQuestion
from storage.records import Batch, Messages

ROLES: Final = ("user", "assistant")
MAX_WAITING: Final = 4  # questions that wait for the one before
#: Given by the address, or without a meaning here.
NOT_HERE: Final = ("user_id", "session_id", "conversation_id", "wait")
IDLE, BINARY, TOO_LARGE = 1000, 1003, 1009  # why a socket is closed


@dataclass
class Talk:
    """A client's socket, after it was accepted. Who goes away cancels what is being answered."""

    parts: Parts
    socket: WebSocket
    user_id: str
    session_id: str
    _reason: tuple[int, str] | None = None  #: why it is closed from here
    _questions: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))

    async def run(self) -> None:
        """Until the client goes, or asks nothing for too long."""
        with self.parts.budget.hold() as hold:
            ends = await self._run(hold)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
                raise end
        if self._reason is not None:  # only now: nobody is in the middle of sending
            await self.socket.close(*self._reason)

    async def _run(self, hold: Hold) -> list[BaseException | None]:
        # Always listening: a client that goes, and its answers to pings, are heard at once.
        tasks = [
            asyncio.create_task(self._listen(hold)),
            asyncio.create_task(self._answer_all(hold)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        return ends

    async def _listen(self, hold: Hold) -> None:
        most = self.parts.config.max_chat_bytes
        while (message := await self.socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:
                self._reason = BINARY, "Send text."
                return
            if len(text) > most:
                self._reason = TOO_LARGE, "The message is too large."
                return
            try:
                self._line_up(text, hold)
            except PenstockError as error:
                await self.socket.send_json(error_event(error, "").body())

    def _line_up(self, text: str, hold: Hold) -> None:
        """Keep a question, until it is stored. Raises `LimitReached`, `Overloaded`."""
        if self._questions.full():
            raise LimitReached(f"More than {MAX_WAITING} questions are waiting here.")
        hold.take(len(text))
        self._questions.put_nowait(text)

    async def _answer_all(self, hold: Hold) -> None:
        while True:
            try:
                async with asyncio.timeout(self.parts.config.socket_idle):
                    text = await self._questions.get()
            except TimeoutError:
                self._reason = IDLE, "Nothing was asked for a while."
                return
            try:
                batch = await self._store(text)
            except PenstockError as error:
                await self.socket.send_json(error_event(error, "").body())
                continue
            finally:
                hold.give(len(text))
            await self._answer(batch)

    async def _answer(self, batch: Batch) -> None:
        over = False
        try:
            async with (
                self.parts.departures.following(self.parts, batch) as presence,
                aclosing(tell(self.parts, batch)) as events,
            ):
                presence.over = True  # counted for those who follow it as well; cancelled below
                async for event in events:
                    await self.socket.send_json(event.body())
                    over = over or event.is_last
        finally:
            if not over and not self.parts.waiters.closing:
                await chats.abandon(self.parts, batch)

    async def _store(self, text: str) -> Batch:
        owner = await stream_owner(self.socket, self.parts, Scope.CHAT)
        post = await self.parts.offload.parse(lambda: self._post(owner, text))
        self.parts.waiters.check_room()  # nothing is stored that could only be cancelled
        return (await chats.store_chat(self.parts, post)).batch

    def _post(self, owner: str, text: str) -> chats.ChatPost:
        """A JSON object, or else the message itself. Raises `InvalidRequest` and its kin."""
        members = _members(text)
        for name in NOT_HERE:
            if name in members:
                raise InvalidRequest(f"`{name}` is not a field of this request.", param=name)
        members |= {"user_id": self.user_id, "session_id": self.session_id}
        fields = intake.parse_fields(SocketQuestion, members)
        history = None if fields.history is None else self._history(fields)
        return chats.ChatPost(owner, fields, None, None, stream=True, history=history)

    def _history(self, fields: SocketQuestion) -> Messages:
        """The turns that were given, the last ones; they count as a part of the prompt."""
        config, given = self.parts.config, fields.history or []
        turns = given[-config.max_history_turns :] if config.max_history_turns else []
        said = [(role, text) for turn in turns for role, text in zip(ROLES, turn, strict=True)]
        messages = (*said, ("user", fields.message))
        prompt = [{"role": role, "content": text} for role, text in messages]
        checked = intake.to_prompt(prompt, config.max_prompt_bytes)
        if checked.messages is None:
            raise ChatFailed(PromptError(checked.error_code or ""), checked.error_message or "")
        return tuple(said)


def _members(text: str) -> dict[str, object]:
    """The object that `text` is; or `text` as the message, where it is none."""
    if text.lstrip().startswith("{"):
        with suppress(MalformedBody):
            return parse_object(bytearray(text, "utf-8", "surrogatepass"))
    return {"message": text}
