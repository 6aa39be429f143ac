"""A chat is a job of one prompt in the express lane: stores it, waits for it, reads its answer.

Knows storage; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection

from api import accepting, intake
from api.dependencies import Parts
from api.errors import ChatFailed, ChatUnanswered
from penstock.errors import PromptError, Unavailable
from penstock.ids import new_id
from penstock.schemas.chat import ChatAnswer, ChatRequest
from penstock.telemetry import get_logger
from storage import conversations, lifecycle, reading
from storage.records import Batch, NewBatch, NewPrompt, ResultRow
from storage.states import Lane

log = get_logger(__name__)

MAX_NAME: Final = 128  # characters of a conversation's id
CONVERSATION: Final = "conversation_id"


@dataclass(frozen=True, slots=True)
class ChatPost:
    """A `/chat` request of an owner. `digest` belongs to `key`."""

    owner: str
    fields: ChatRequest
    key: str | None
    digest: str | None


def conversation_of(fields: ChatRequest) -> str:
    """The conversation's id: as given, or of the user's session, or a new one."""
    if fields.user_id is not None and fields.session_id is not None:
        # Quoted, so that no two pairs come to the same id.
        name = f"{quote(fields.user_id, safe='')}/{quote(fields.session_id, safe='')}"
        if len(name) > MAX_NAME:
            return f"conv_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        return name
    return fields.conversation_id or new_id("conv")


async def store_chat(parts: Parts, post: ChatPost) -> accepting.Stored:
    """The turn and its job, in one transaction."""
    fields, config = post.fields, parts.config
    message = intake.to_prompt(fields.message, config.max_prompt_bytes)
    if message.messages is None:
        raise ChatFailed(PromptError(message.error_code or ""), message.error_message or "")
    said = message.messages

    def create(conn: Connection) -> Batch:
        batch_id = new_id("chat")
        conversation = conversations.open_turn(
            conn,
            post.owner,
            conversation_of(fields),
            reset=fields.reset,
            batch_id=batch_id,
            message=fields.message,
        )
        turns = config.max_history_turns
        earlier = conversations.history(conn, post.owner, conversation, turns) if turns else ()
        batch = NewBatch(
            id=batch_id,
            owner=post.owner,
            kind="chat",
            model=accepting.resolve_model(conn, fields.model, config.model),
            lane=Lane.EXPRESS,
            params=intake.sampling_params(fields),
            system=fields.system,
            metadata={CONVERSATION: conversation},
            idempotency_key=post.key,
            body_hash=post.digest,
        )
        prompts = [NewPrompt((*earlier, *said))]
        return accepting.create_within_limits(conn, config.limits, batch, prompts, 1)

    return await accepting.store(parts, create, post.digest)


async def answer(parts: Parts, batch: Batch) -> ChatAnswer:
    """Wait for the one outcome. Raises `ChatFailed`, and `ChatUnanswered` when it takes too long or
    cannot be waited for: the message is stored, so the client is told where to look."""
    try:
        return await _answer(parts, batch)
    except Unavailable:
        raise ChatUnanswered(batch.id) from None


async def _answer(parts: Parts, batch: Batch) -> ChatAnswer:
    clock = asyncio.get_running_loop().time
    deadline = clock() + parts.config.chat_timeout
    with parts.waiters.watch(batch.id) as watch:
        while True:
            found = await parts.offload.read(lambda conn: _outcome(conn, batch))
            left = deadline - clock()
            if found is not None:
                return _as_answer(batch, *found)
            if left <= 0 or parts.waiters.closing:
                raise ChatUnanswered(batch.id)
            await watch.wait(left)


async def abandon(parts: Parts, batch: Batch) -> None:
    """The client has gone: no need to go on. Best effort."""
    try:
        await parts.offload.read(lambda conn: lifecycle.request_cancel(conn, batch.owner, batch.id))
        log.info("chat.abandoned", batch=batch.id)
    except Unavailable:
        log.warning("cancel.skipped", batch=batch.id)


def _outcome(conn: Connection, batch: Batch) -> tuple[ResultRow, str | None] | None:
    """The result, and what it has beside its text."""
    row = next(iter(reading.results(conn, batch.id, 0, 1)), None)
    if row is None:
        return None
    return row, reading.details(conn, batch.id, 0, 1).get(0) if batch.detailed else None


def _as_answer(batch: Batch, row: ResultRow, detail: str | None) -> ChatAnswer:
    if row.text is None:
        reason = PromptError(row.error_code or PromptError.ENGINE)
        raise ChatFailed(reason, row.error_message or "The message has no answer.", batch.id)
    return ChatAnswer(
        response=row.text,
        conversation_id=batch.metadata[CONVERSATION],
        request_id=batch.id,
        tokens_generated=row.completion_tokens,
        detail=None if detail is None else json.loads(detail),
    )
