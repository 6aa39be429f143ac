"""`/conversations`: listed, read and forgotten."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Connection

from api import cursors, openapi
from api.dependencies import Owner, PartsDep
from api.scopes import needs
from penstock.errors import InvalidRequest, NotFound
from penstock.keys import Scope
from penstock.schemas.conversation import (
    ConversationDeleted,
    ConversationList,
    ConversationMessage,
    ConversationMessages,
    ConversationSummary,
)
from storage import conversations, forgetting
from storage.conversations import Conversation, Turn

router = APIRouter(tags=["conversations"], dependencies=[needs(Scope.CHAT)])

MAX_CURSOR = 512  # characters
MAX_TURN_ID = 2**63 - 1

Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR)]


@router.get("/conversations", responses=openapi.errors(422))
async def list_conversations(
    parts: PartsDep,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Cursor = None,
) -> ConversationList:
    """Conversations, the last used first. `after`: the `next` of the page before."""
    start = None if after is None else cursors.decode(after, "after")
    found = await parts.offload.read(lambda conn: conversations.page(conn, owner, limit + 1, start))
    shown = found[:limit]
    more = len(found) > limit
    return ConversationList(
        data=[
            ConversationSummary(
                conversation_id=one.id,
                created_at=one.created_at.timestamp(),
                updated_at=one.updated_at.timestamp(),
            )
            for one in shown
        ],
        next=cursors.encode(shown[-1].updated_at, shown[-1].id) if more else None,
    )


@router.get("/conversations/{conversation_id:path}", responses=openapi.errors(404, 422))
async def get_conversation(
    parts: PartsDep,
    owner: Owner,
    conversation_id: str,
    limit: Annotated[int, Query(ge=1, le=500, description="Most turns.")] = 100,
    before: Cursor = None,
) -> ConversationMessages:
    """The last turns of a conversation, oldest first; fewer where they are large.

    `before`: the `earlier` of the page after.
    """
    end = None if before is None else _turn_cursor(before)

    def read(conn: Connection) -> tuple[Conversation | None, Sequence[Turn], bool]:
        found = conversations.get(conn, owner, conversation_id)
        if found is None:
            return None, (), False
        turns = conversations.last_turns(conn, owner, conversation_id, limit, end)
        first = (turns[0].said_at, turns[0].id) if turns else None
        more = first and conversations.last_turns(conn, owner, conversation_id, 1, first)
        return found, turns, bool(more)

    found, turns, more = await parts.offload.read(read)
    if found is None:
        raise _unknown()
    return ConversationMessages(
        conversation_id=found.id,
        messages=[message for turn in turns for message in _messages(turn)],
        earlier=cursors.encode(turns[0].said_at, str(turns[0].id)) if more else None,
    )


@router.delete("/conversations/{conversation_id:path}", responses=openapi.errors(404))
async def delete_conversation(
    parts: PartsDep, owner: Owner, conversation_id: str
) -> ConversationDeleted:
    """Forget a conversation with its answers. Turns that have no answer yet are cancelled."""

    def delete(conn: Connection) -> bool:
        known = conversations.get(conn, owner, conversation_id)
        return known is not None and forgetting.delete(conn, owner, conversation_id)

    if not await parts.offload.read(delete):
        raise _unknown()
    return ConversationDeleted(conversation_id=conversation_id)


def _turn_cursor(cursor: str) -> tuple[dt.datetime, int]:
    at, turn = cursors.decode(cursor, "before")
    if not (turn.isascii() and turn.isdigit() and int(turn) <= MAX_TURN_ID):
        raise InvalidRequest("`before` is not a cursor of an earlier answer.", param="before")
    return at, int(turn)


def _messages(turn: Turn) -> list[ConversationMessage]:
    said = ConversationMessage(
        role="user", content=turn.message, timestamp=turn.said_at.timestamp()
    )
    if turn.answer is None:
        return [said]
    at = turn.answered_at or turn.said_at
    answered = ConversationMessage(role="assistant", content=turn.answer, timestamp=at.timestamp())
    return [said, answered]


def _unknown() -> NotFound:
    return NotFound("There is no conversation under this id.")
