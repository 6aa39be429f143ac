"""A small server that speaks OpenAI's streamed chat over real HTTP, at a pace that tests set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class OpenAIServer:
    """`tokens` pieces after `first` seconds, `gap` seconds apart. `faults`: statuses, one a
    request, before any answer."""

    tokens: int = 3
    first: float = 0.0
    gap: float = 0.0
    usage: bool = True
    cut: bool = False  #: streams end before they should
    faults: list[int] = field(default_factory=list)
    key: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    url: str = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return JSONResponse({}, 401)
        return JSONResponse({"object": "list", "data": [{"id": "small", "object": "model"}]})

    async def _chat(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.faults:
            return JSONResponse({"error": {"message": "no"}}, self.faults.pop(0))
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield _chunk({"role": "assistant", "content": ""})
            await asyncio.sleep(self.first)
            for number in range(self.tokens):
                yield _chunk({"content": f"{number} "})
                await asyncio.sleep(self.gap)
            if self.cut:
                return
            yield _chunk({}, finish="stop")
            if self.usage:
                counted = {"prompt_tokens": 7, "completion_tokens": self.tokens + 1}
                yield f"data: {json.dumps({'choices': [], 'usage': counted})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.open_now -= 1


def _chunk(delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"
