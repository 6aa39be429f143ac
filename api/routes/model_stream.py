"""`POST /api/v1/chat/stream`: the model-service family's answer as it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import accepting, openapi, sse
from api.dependencies import IdempotencyKey, Owner, Parts, PartsDep
from api.routes.model_service import take_chat
from api.scopes import needs
from api.telling import ChatEvent, tell_follower
from penstock.keys import Scope
from storage.records import Batch

router = APIRouter(prefix="/api/v1", tags=["model service"])

EVENTS = (
    '`data: {"type": "start" | "chunk" | "end" | "error", "content"}`. `start` and `end` have '
    "`request_id`, `error` a `code`. A stream without `end` or `error` was cut, and goes on at "
    "`GET /chat/stream/{request_id}`."
)

#: Of the other members of an event, those that it keeps.
SHOWN = ("request_id", "code", "dropped_turns")


@router.post(
    "/chat/stream",
    response_class=Response,
    responses={
        200: sse.documented(EVENTS)[200],
        **openapi.errors(400, 404, 409, 413, 415, 422, 429),
    },
    openapi_extra=openapi.body("ModelChatRequest", openapi.MODEL_CHAT_EXAMPLES),
    dependencies=[needs(Scope.CHAT)],
)
async def chat_stream(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> Response:
    """Answer a message, given what was said before it, and read the answer while it is made."""
    parts.waiters.check_room()
    stored = await take_chat(request, parts, owner, key, stream=True)
    return sse.EventStream(_events(parts, stored.batch), accepting.headers_of(stored))


async def _events(parts: Parts, batch: Batch) -> AsyncGenerator[bytes, None]:
    async with aclosing(tell_follower(parts, batch)) as events:
        async for event in events:
            if event.type != "thinking":  # the family has no such event
                yield sse.event(_body(event), id=event.id)


def _body(event: ChatEvent) -> dict[str, object]:
    more = {name: value for name, value in event.more.items() if name in SHOWN}
    return {"type": event.type, "content": event.content, **more}
