"""The servers that can be asked: OpenAI's dialect over plain HTTP, Penstock's own by its client.

A target repeats nothing: what fails is an error of the measurement. Knows no clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import httpx2

from penstock.client import AsyncClient
from penstock.errors import PenstockError
from penstock.loadtest.plan import Plan
from penstock.loadtest.prompts import Prompt
from penstock.loadtest.samples import Heard


class Refused(Exception):
    """The request has no answer; the text is the kind of error, short enough to be counted by."""


class Target(Protocol):
    """Answers prompts: one by a chat, several by a job."""

    async def ask(self, prompts: Sequence[Prompt], heard: Heard) -> None:
        """Wait for the whole answer. Raises Refused."""


class OpenAITarget:
    """`POST /v1/chat/completions`, streamed, with usage."""

    def __init__(self, http: httpx2.AsyncClient, model: str, temperature: float) -> None:
        self._http = http
        self._fields = {
            "model": model,
            "temperature": temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def ask(self, prompts: Sequence[Prompt], heard: Heard) -> None:
        [prompt] = prompts
        messages = [{"role": "user", "content": prompt.text}]
        body = {**self._fields, "messages": messages, "max_tokens": prompt.max_tokens}
        try:
            async with self._http.sse("/chat/completions", method="POST", json=body) as source:
                if source.response.status_code != httpx2.codes.OK:
                    raise Refused(f"http {source.response.status_code}")
                finished = False
                async for event in source:
                    if event.data == "[DONE]":
                        return
                    finished = _take(json.loads(event.data), heard) or finished
        except httpx2.TransportError as error:
            raise Refused(_kind(error)) from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Refused("not understood") from None
        if not finished:
            raise Refused("cut off")


class PenstockChat:
    """`POST /chat/stream`."""

    def __init__(self, client: AsyncClient, plan: Plan, model: str | None) -> None:
        self._client = client
        self._fields = _fields(plan, model)

    async def ask(self, prompts: Sequence[Prompt], heard: Heard) -> None:
        [prompt] = prompts
        stream = self._client.chat_stream(prompt.text, max_tokens=prompt.max_tokens, **self._fields)
        try:
            async with stream:
                async for _ in stream:
                    heard.piece()
        except PenstockError as error:
            raise Refused(error.code) from None
        if not stream.reply.streamed:
            heard.whole()
        if stream.reply.tokens_generated is not None:
            heard.usage(0, stream.reply.tokens_generated)


class PenstockJob:
    """`POST /batch-generate`, then waiting for its end; its first piece is its acceptance."""

    def __init__(self, client: AsyncClient, plan: Plan, model: str | None) -> None:
        self._client = client
        self._timeout = plan.timeout
        self._fields = _fields(plan, model)

    async def ask(self, prompts: Sequence[Prompt], heard: Heard) -> None:
        texts = [prompt.text for prompt in prompts]
        most = max(prompt.max_tokens for prompt in prompts)
        try:
            job = await self._client.submit(texts, max_tokens=most, **self._fields)
            heard.piece()
            end = await job.wait(self._timeout, progress=False)
        except PenstockError as error:
            raise Refused(error.code) from None
        heard.usage(end.usage.prompt_tokens, end.usage.completion_tokens)
        if end.progress.failed:
            raise Refused("prompts failed")


def _fields(plan: Plan, model: str | None) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {"temperature": plan.temperature, **named}


def _take(chunk: Any, heard: Heard) -> bool:
    """One chunk of OpenAI's stream; whether the answer has ended with it."""
    if chunk.get("error"):
        raise Refused("error in the stream")
    finished = False
    for choice in chunk.get("choices") or ():
        delta = choice["delta"]
        if delta.get("content") or delta.get("reasoning_content"):
            heard.piece()
        finished = finished or choice.get("finish_reason") is not None
    usage = chunk.get("usage")
    if isinstance(usage, dict):
        heard.usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    return finished


def _kind(error: httpx2.TransportError) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "timeout"
    if isinstance(error, httpx2.SSEError):
        return "no stream"
    return "no connection" if isinstance(error, httpx2.ConnectError) else "connection broke"
