"""`POST /chat`: one message, one answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from api import accepting, chats, intake, openapi
from api.attending import attend
from api.body import read_body
from api.dependencies import IdempotencyKey, Owner, Parts, PartsDep
from api.json_body import parse_object
from api.scopes import needs
from penstock.keys import Scope
from penstock.schemas.chat import ChatAccepted, ChatAnswer, ChatRequest

router = APIRouter(tags=["chat"], dependencies=[needs(Scope.CHAT)])


@router.post(
    "/chat",
    response_model=ChatAnswer,
    responses={
        202: {"model": ChatAccepted, "description": "With `wait: false`: stored, to be polled."},
        **openapi.errors(400, 404, 409, 413, 415, 422, 429),
    },
    openapi_extra=openapi.body("ChatRequest", openapi.CHAT_EXAMPLES),
)
async def chat(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> JSONResponse:
    """Say something in a conversation, and wait for the answer or not.

    When waiting took too long (503), the answer can still be polled under the `request_id` given.
    """
    post, stored = await take_chat(request, parts, owner, key)
    if post.fields.wait:
        # Whoever sent a key may come back with it for the answer; of anybody else nobody is left.
        answer = await attend(
            request,
            parts,
            stored.batch,
            chats.answer(parts, stored.batch),
            cancel_on_leave=key is None,
        )
        shown = answer.model_dump(exclude={"detail"} if answer.detail is None else None)
        return JSONResponse(shown, 200, accepting.headers_of(stored))
    accepted = ChatAccepted(
        request_id=stored.batch.id, conversation_id=stored.batch.metadata[chats.CONVERSATION]
    )
    return JSONResponse(accepted.model_dump(), 202, accepting.headers_of(stored))


async def take_chat(
    request: Request, parts: Parts, owner: str, key: str | None, *, stream: bool = False
) -> tuple[chats.ChatPost, accepting.Stored]:
    """Read a chat's body within bounds, and store it."""
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, parts.config.max_chat_bytes)
        digest = accepting.body_hash(body) if key else None
        fields = await parts.offload.parse(
            lambda: intake.parse_fields(ChatRequest, parse_object(body))
        )
        post = chats.ChatPost(owner, fields, key, digest, stream)
        return post, await chats.store_chat(parts, post)
