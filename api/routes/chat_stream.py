"""`POST /chat/stream` and `GET /chat/stream/{request_id}`: an answer as it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from api import accepting, chats, openapi, sse
from api.access_token import StreamNeeds
from api.dependencies import BatchId, IdempotencyKey, Owner, Parts, PartsDep
from api.marks import Mark, parse_mark
from api.routes.chat import take_chat
from api.scopes import needs
from api.sse import LastEventId
from api.telling import tell_follower
from penstock.errors import NotFound
from penstock.keys import Scope
from penstock.schemas.chat import ChatAccepted
from storage.records import Batch

router = APIRouter(tags=["chat"])

EVENTS = (
    '`data: {"type": "start" | "chunk" | "thinking" | "end" | "error", "content", "message_id"}`. '
    "`start` has `conversation_id` and `request_id`, `end` `finish_reason` and `tokens_generated`, "
    "`error` a `code`. A stream without `end` or `error` was cut."
)


@router.post(
    "/chat/stream",
    response_class=Response,
    responses={
        202: {"model": ChatAccepted, "description": "With `wait: false`: stored, to be followed."},
        **sse.documented(EVENTS),
        **openapi.errors(400, 404, 409, 413, 415, 422, 429),
    },
    openapi_extra=openapi.body("ChatRequest", openapi.CHAT_EXAMPLES),
    dependencies=[needs(Scope.CHAT)],
)
async def chat_stream(
    request: Request,
    parts: PartsDep,
    owner: Owner,
    key: IdempotencyKey,
    last_event_id: LastEventId = None,
) -> Response:
    """Say something in a conversation, and read the answer while it is made.

    A stream that was cut goes on at `GET /chat/stream/{request_id}`. When nobody has followed it
    for 15 seconds, the answer is cancelled, unless an `Idempotency-Key` was given. With
    `wait: false` nothing is streamed here: for an `EventSource`, which can only `GET`.
    """
    since = _since(last_event_id)
    parts.waiters.check_room()
    post, stored = await take_chat(request, parts, owner, key, stream=True)
    headers = accepting.headers_of(stored)
    if not post.fields.wait:
        accepted = ChatAccepted(
            request_id=stored.batch.id, conversation_id=stored.batch.metadata[chats.CONVERSATION]
        )
        return JSONResponse(accepted.model_dump(), 202, headers)
    return sse.EventStream(_events(parts, stored.batch, since), headers)


@router.get(
    "/chat/stream/{request_id}",
    response_class=Response,
    responses={**sse.documented(EVENTS), **openapi.errors(404, 422)},
)
async def follow_chat(
    parts: PartsDep,
    owner: Annotated[str, Depends(StreamNeeds(Scope.CHAT))],
    batch_id: BatchId,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow an answer that is being made or was, from its beginning or from where it was cut."""
    if last_event_id == sse.LAST:
        return sse.over()
    since = _since(last_event_id)
    batch = await accepting.load(parts, owner, batch_id)
    if batch.kind != "chat":
        raise NotFound("There is no chat under this id.")
    parts.waiters.check_room()
    return sse.EventStream(_events(parts, batch, since))


def _since(last_event_id: str | None) -> Mark | None:
    return None if last_event_id is None else parse_mark(last_event_id)


async def _events(parts: Parts, batch: Batch, since: Mark | None) -> AsyncGenerator[bytes, None]:
    async with aclosing(tell_follower(parts, batch, since)) as events:
        async for event in events:
            yield sse.event(event.body(), id=event.id)
