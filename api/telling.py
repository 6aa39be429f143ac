"""A chat's answer as the events of the contract, for server-sent events and WebSockets alike.

A stream that ends without `end` or `error` was cut, and can be followed on. Knows no transport.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from api import chats
from api.attending import COMPLETED, count
from api.dependencies import Parts
from api.errors import ChatUnanswered, problem_of
from api.marks import Mark
from api.sse import LAST
from api.streaming import Ended, follow
from api.thoughts import Thoughts
from penstock.errors import PenstockError
from storage.records import Batch
from workers.outcomes import DROPPED


@dataclass(frozen=True, slots=True)
class ChatEvent:
    """`type`: start, chunk, thinking, end or error. `id` says where it stands in the answer."""

    type: str
    content: str
    id: str
    message_id: str
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        return self.type in ("end", "error")

    def body(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "content": self.content,
            "message_id": self.message_id,
            **self.more,
        }


def error_event(error: PenstockError, message_id: str) -> ChatEvent:
    """What a client gets to see of it; the stream ends with it."""
    problem = problem_of(error)
    param = {"param": problem.param} if problem.param else {}
    more = {"code": problem.code, **param, **problem.extra}
    return ChatEvent("error", problem.message, LAST, message_id, more)


async def tell(
    parts: Parts, batch: Batch, since: Mark | None = None
) -> AsyncGenerator[ChatEvent, None]:
    """The answer from the beginning, or from `since` on; no event at all where the process is about
    to end, so that the client comes back for the rest."""
    started = time.monotonic()
    thoughts = Thoughts(since or Mark())
    mark = thoughts.mark
    if since is None:
        names = {"conversation_id": batch.metadata.get(chats.CONVERSATION), "request_id": batch.id}
        yield ChatEvent("start", "", str(mark), batch.id, names)
    try:
        async with aclosing(follow(parts, batch, offset=mark.offset, check=mark.check)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Ended):
                    for part in thoughts.take(piece.text):
                        yield _part(batch, thoughts, *part)
                    continue
                for part in thoughts.finish():
                    yield _part(batch, thoughts, *part)
                yield _end(batch, piece)
                count(parts, batch, started, COMPLETED)
    except PenstockError as error:
        if isinstance(error, ChatUnanswered) and parts.waiters.closing:
            return
        count(parts, batch, started, problem_of(error).code)
        yield error_event(error, batch.id)


async def tell_follower(
    parts: Parts, batch: Batch, since: Mark | None = None
) -> AsyncGenerator[ChatEvent, None]:
    """The same for a client that counts among the answer's followers until its last event."""
    async with (
        parts.departures.following(parts, batch) as presence,
        aclosing(tell(parts, batch, since)) as events,
    ):
        async for event in events:
            presence.over = presence.over or event.is_last
            yield event


def _part(batch: Batch, thoughts: Thoughts, text: str, thinking: bool) -> ChatEvent:
    return ChatEvent("thinking" if thinking else "chunk", text, str(thoughts.mark), batch.id)


def _end(batch: Batch, ended: Ended) -> ChatEvent:
    """Raises `ChatFailed`."""
    row = ended.row
    if row.text is None:
        raise chats.failure(batch, row)
    more: dict[str, Any] = {
        "finish_reason": row.finish_reason,
        "tokens_generated": row.completion_tokens,
        "request_id": batch.id,
    }
    detail = {} if ended.detail is None else json.loads(ended.detail)
    if dropped := detail.pop(DROPPED, 0):
        more[DROPPED] = dropped
    if detail:
        more["detail"] = detail
    return ChatEvent("end", "", LAST, batch.id, more)
