"""A completion is a chat without a conversation: stores it, and brings its answer whole or in
chunks. Knows storage; of HTTP only that a client may leave.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from anyio import CancelScope
from sqlalchemy import Connection

from api import accepting, chats
from api.attending import COMPLETED, count
from api.dependencies import Parts
from api.errors import ChatUnanswered, problem_of
from api.openai_bodies import Call, render_completion
from api.openai_chunks import Chunks, error_event
from api.openai_errors import Refused, openai_problem
from api.streaming import Ended, follow
from penstock.errors import PenstockError
from penstock.ids import new_id
from storage.records import Batch, NewBatch, NewPrompt
from storage.states import Lane

LEFT: Final = "left"  # by the client, before the end


@dataclass(frozen=True, slots=True)
class CompletionPost:
    """A completion that an owner asks for at an endpoint. `digest` belongs to `key`."""

    endpoint: str
    owner: str
    call: Call
    key: str | None
    digest: str | None


async def store_completion(parts: Parts, post: CompletionPost) -> accepting.Stored:
    """The job of one prompt."""
    call, config = post.call, parts.config

    def create(conn: Connection) -> Batch:
        batch = NewBatch(
            id=new_id("chat"),
            owner=post.owner,
            kind="chat",
            model=accepting.resolve_chat_model(conn, call.model, config),
            lane=Lane.EXPRESS,
            params=chats.to_be_streamed(call.params) if call.stream else call.params,
            priority=call.priority,
            metadata=call.metadata,
            idempotency_key=post.key,
            body_hash=post.digest,
        )
        prompts = [NewPrompt(call.messages)]
        return accepting.create_within_limits(conn, config.limits, batch, prompts, 1)

    return await accepting.store(parts, create, post.digest)


async def whole(parts: Parts, post: CompletionPost, batch: Batch) -> dict[str, object]:
    """The body of the answer. Raises `ChatFailed`, and `ChatUnanswered` when it takes too long."""
    try:
        row, detail = await chats.await_outcome(parts, batch)
    except ChatUnanswered:
        await _give_up(parts, post, batch)
        raise
    if row.text is None:
        raise chats.failure(batch, row)
    asked, created = post.call.params, int(batch.created_at.timestamp())
    found = None if detail is None else json.loads(detail)
    return render_completion(post.endpoint, batch.id, created, batch.model, row, found, asked)


async def chunks(parts: Parts, post: CompletionPost, batch: Batch) -> AsyncGenerator[bytes]:
    """The answer as it is made. Raises `Refused` for what went wrong before the first chunk; later
    it is a chunk of its own."""
    started, status, opened = time.monotonic(), LEFT, False
    try:
        async with (
            parts.departures.following(parts, batch) as presence,
            aclosing(_written(parts, post, batch)) as written,
        ):
            presence.over = True  # counted for those who follow it as well; cancelled below
            async for chunk in written:
                opened = True
                yield chunk
        status = COMPLETED
    except PenstockError as error:
        status = problem_of(error).code
        problem = openai_problem(error, post.endpoint)
        if not opened:
            raise Refused(problem) from None
        yield error_event(problem)
    finally:
        count(parts, batch, started, status)
        if status in (LEFT, ChatUnanswered.code):
            await _give_up(parts, post, batch)


async def _written(parts: Parts, post: CompletionPost, batch: Batch) -> AsyncGenerator[bytes]:
    call, created = post.call, int(batch.created_at.timestamp())
    writer = Chunks(post.endpoint, batch.id, created, batch.model, call.params, call.include_usage)
    opening = writer.opening()
    async with aclosing(follow(parts, batch)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Ended) and piece.row.text is None:
                raise chats.failure(batch, piece.row)
            for chunk in opening:  # once, and not before it is known that there is an answer
                yield chunk
            if isinstance(piece, Ended):
                found = None if piece.detail is None else json.loads(piece.detail)
                for chunk in writer.ending(piece.row, found):
                    yield chunk
            else:
                yield writer.piece(piece.text)


async def _give_up(parts: Parts, post: CompletionPost, batch: Batch) -> None:
    """Nobody waits any more, unless who sent a key comes back with it."""
    if post.key is None:
        with CancelScope(shield=True):
            await chats.abandon(parts, batch)
