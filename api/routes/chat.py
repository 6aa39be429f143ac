"""`POST /chat`: one message, one answer."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from api import accepting, chats, intake, openapi
from api.body import read_body
from api.dependencies import IdempotencyKey, Owner, Parts, PartsDep
from api.errors import ChatFailed, ChatUnanswered
from api.json_body import parse_object
from penstock.errors import PenstockError
from penstock.schemas.chat import ChatAccepted, ChatAnswer, ChatRequest
from storage.records import Batch

router = APIRouter(tags=["chat"])

#: Besides the message: the other fields, and up to six bytes for a character in JSON.
BODY_SLACK = 1_000_000
JSON_FACTOR = 6


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
    config = parts.config
    most = min(config.max_body_bytes, JSON_FACTOR * config.max_prompt_bytes + BODY_SLACK)
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, most)
        digest = accepting.body_hash(body) if key else None
        fields = await parts.offload.parse(
            lambda: intake.parse_fields(ChatRequest, parse_object(body))
        )
        post = chats.ChatPost(owner, fields, key, digest)
        stored = await chats.store_chat(parts, post)
    if fields.wait:
        # Whoever sent a key may come back with it for the answer; of anybody else nobody is left.
        answer = await _answer_while_connected(
            request, parts, stored.batch, cancel_on_leave=key is None
        )
        shown = answer.model_dump(exclude={"detail"} if answer.detail is None else None)
        return JSONResponse(shown, 200, accepting.headers_of(stored))
    accepted = ChatAccepted(
        request_id=stored.batch.id, conversation_id=stored.batch.metadata[chats.CONVERSATION]
    )
    return JSONResponse(accepted.model_dump(), 202, accepting.headers_of(stored))


async def _answer_while_connected(
    request: Request, parts: Parts, batch: Batch, *, cancel_on_leave: bool
) -> ChatAnswer:
    """The answer, unless the client goes away first."""
    started = time.monotonic()
    answering = asyncio.create_task(chats.answer(parts, batch))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            if cancel_on_leave:
                await chats.abandon(parts, batch)
            raise ClientDisconnect
        answer = await answering
    except PenstockError as error:
        _count(parts, batch, started, _status_of(error))
        raise
    finally:
        answering.cancel()
        leaving.cancel()
    _count(parts, batch, started, "completed")
    return answer


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _status_of(error: PenstockError) -> str:
    if isinstance(error, ChatFailed):
        return error.reason.value
    return "timeout" if isinstance(error, ChatUnanswered) else error.code


def _count(parts: Parts, batch: Batch, started: float, status: str) -> None:
    parts.metrics.count_chat(batch.model, status, time.monotonic() - started)
