"""A chat is a job of one prompt in the express lane: stores it, waits for it, reads its answer.

Knows storage; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping
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
from storage import conversations, lifecycle, reading, turns
from storage.records import Batch, Messages, NewBatch, NewPrompt, ResultRow
from storage.states import Lane
from workers.outcomes import DROPPED
from workers.params import TRIM

log = get_logger(__name__)

MAX_NAME: Final = 128  # characters of a conversation's id
CONVERSATION: Final = "conversation_id"

#: The result, and as JSON what it has beside its text.
Outcome = tuple[ResultRow, str | None]


@dataclass(frozen=True, slots=True)
class ChatPost:
    """A `/chat` request of an owner. `digest` belongs to `key`; `stream`: the answer's text is
    wanted as it comes; `history` stands for the earlier turns that are stored."""

    owner: str
    fields: ChatRequest
    key: str | None
    digest: str | None
    stream: bool = False
    history: Messages | None = None


def to_be_streamed(params: Mapping[str, object]) -> dict[str, object]:
    """Parameters of a chat that will be followed. One that leaves something to chance, and does not
    ask for the answer to an equal one, gets a seed: so a second run after a crash says the same as
    the first, of which the client has a part."""
    if params.get("use_cache") or params.get("seed") is not None or params.get("temperature") == 0:
        return {**params, "stream": True}
    # Nobody asks for this seed again: there is no use in finding its answer.
    return {**params, "seed": secrets.randbits(62), "use_cache": False, "stream": True}


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
            history=config.max_history_turns if post.history is None else 0,
        )
        params: dict[str, object] = {**intake.sampling_params(fields), TRIM: True}
        batch = NewBatch(
            id=batch_id,
            owner=post.owner,
            kind="chat",
            model=accepting.resolve_chat_model(conn, fields.model, config),
            lane=Lane.EXPRESS,
            params=to_be_streamed(params) if post.stream else params,
            system=fields.system,
            metadata={CONVERSATION: conversation},
            idempotency_key=post.key,
            body_hash=post.digest,
        )
        prompt = NewPrompt((*(post.history or ()), *said))
        stored = accepting.create_within_limits(conn, config.limits, batch, [prompt], 1)
        if post.history is None:
            turns.line_up(conn, batch_id)  # what was said before is added when it is claimed
        return stored

    return await accepting.store(parts, create, post.digest)


async def answer(parts: Parts, batch: Batch) -> ChatAnswer:
    """Wait for the one outcome. Raises `ChatFailed`, and `ChatUnanswered` when it takes too long or
    cannot be waited for: the message is stored, so the client is told where to look."""
    return _as_answer(batch, *await await_outcome(parts, batch))


async def await_outcome(parts: Parts, batch: Batch) -> Outcome:
    """Wait for the one outcome, good or bad. Raises `ChatUnanswered`."""
    try:
        return await _watch(parts, batch)
    except Unavailable:
        raise ChatUnanswered(batch.id) from None


async def _watch(parts: Parts, batch: Batch) -> Outcome:
    clock = asyncio.get_running_loop().time
    deadline = clock() + parts.config.chat_timeout
    with parts.waiters.watch(batch.id) as watch:
        while True:
            found = await parts.offload.read(lambda conn: outcome(conn, batch))
            left = deadline - clock()
            if found is not None:
                return found
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


def failure(batch: Batch, row: ResultRow) -> ChatFailed:
    """Why a row has no text."""
    reason = PromptError(row.error_code or PromptError.ENGINE)
    return ChatFailed(reason, row.error_message or "The message has no answer.", batch.id)


def outcome(conn: Connection, batch: Batch) -> Outcome | None:
    """The result of a chat, and what it has beside its text."""
    row = next(iter(reading.results(conn, batch.id, 0, 1)), None)
    if row is None:
        return None
    return row, reading.details(conn, batch.id, 0, 1).get(0) if batch.detailed else None


def _as_answer(batch: Batch, row: ResultRow, detail: str | None) -> ChatAnswer:
    if row.text is None:
        raise failure(batch, row)
    more = {} if detail is None else json.loads(detail)
    return ChatAnswer(
        response=row.text,
        conversation_id=batch.metadata.get(CONVERSATION, ""),
        request_id=batch.id,
        tokens_generated=row.completion_tokens,
        from_cache=row.from_cache,
        dropped_turns=more.pop(DROPPED, 0),
        detail=more or None,
    )
