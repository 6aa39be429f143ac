"""`/v1/chat/completions` and `/v1/completions`, as the official `openai` client calls them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from api import accepting, completions, openapi
from api.attending import attend
from api.body import read_body
from api.completions import CompletionPost
from api.dependencies import IdempotencyKey, Owner, Parts, PartsDep
from api.json_body import parse_object
from api.openai_bodies import parse_call
from api.openai_errors import OpenaiRoute, told
from api.openai_parameters import CHAT, TEXT
from api.scopes import needs
from api.sse import EVENTS, MEDIA_TYPE, EventStream
from penstock.keys import Scope
from penstock.schemas.openai_answers import ChatCompletion, TextCompletion

router = APIRouter(tags=["openai"], dependencies=[needs(Scope.CHAT)], route_class=OpenaiRoute)

ERRORS: Final = openapi.errors(400, 404, 409, 413, 415, 422, 429)
CHAT_EXAMPLES: Final = {
    "a question": {
        "value": {
            "messages": [
                {"role": "system", "content": "Answer with one word."},
                {"role": "user", "content": "Which topic is `json.dumps`?"},
            ],
            "temperature": 0,
        }
    },
    "as it comes": {
        "value": {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    },
}
TEXT_EXAMPLES: Final = {
    "a text to go on with": {"value": {"prompt": "def fibonacci(n):", "max_tokens": 64}}
}


def _answers(model: type[ChatCompletion] | type[TextCompletion]) -> dict[int | str, dict[str, Any]]:
    chunks = {MEDIA_TYPE: EVENTS}
    return {200: {"model": model, "content": chunks}, **ERRORS}


@router.post(
    CHAT,
    responses=_answers(ChatCompletion),
    openapi_extra=openapi.body("ChatCompletionRequest", CHAT_EXAMPLES),
)
async def chat_completions(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> Response:
    """Answer a chat, whole or with `stream` as it is made.

    OpenAI's parameters that have no effect here are refused by name, and `choices`, `mode`,
    `top_k`, `min_p`, `repetition_penalty` and `priority` are Penstock's own.
    """
    return await _complete(request, parts, owner, key, CHAT)


@router.post(
    TEXT,
    responses=_answers(TextCompletion),
    openapi_extra=openapi.body("TextCompletionRequest", TEXT_EXAMPLES),
)
async def text_completions(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> Response:
    """Go on with a text, without a chat template; otherwise as `/v1/chat/completions`."""
    return await _complete(request, parts, owner, key, TEXT)


async def _complete(
    request: Request, parts: Parts, owner: str, key: str | None, endpoint: str
) -> Response:
    with told(endpoint):
        post, stored = await _take(request, parts, owner, key, endpoint)
        batch, headers = stored.batch, accepting.headers_of(stored)
        if post.call.stream:
            return CompletionStream(completions.chunks(parts, post, batch), headers)
        answer = completions.whole(parts, post, batch)
        body = await attend(request, parts, batch, answer, cancel_on_leave=key is None)
    return JSONResponse(body, headers=headers)


async def _take(
    request: Request, parts: Parts, owner: str, key: str | None, endpoint: str
) -> tuple[CompletionPost, accepting.Stored]:
    """Read and store it."""
    config = parts.config
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, config.max_chat_bytes)
        # With the endpoint: one body may be good for several.
        digest = accepting.body_hash(endpoint.encode() + body) if key else None
        call = await parts.offload.parse(
            lambda: parse_call(endpoint, parse_object(body), config.max_prompt_bytes)
        )
        if call.stream:
            parts.waiters.check_room()  # nothing is stored that could only be cancelled
        post = CompletionPost(endpoint, owner, call, key, digest)
        return post, await completions.store_completion(parts, post)


class CompletionStream(EventStream):
    """Its status waits for the first chunk, so that what fails before it is an ordinary error."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events) as chunks:
            self._events = _with(await anext(chunks), chunks)
            await super().stream_response(send)


async def _with(first: bytes, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk
