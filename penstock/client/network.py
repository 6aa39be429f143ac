"""The two ways to send: blocking, and on an event loop. All else of the client is written once,
as coroutines over `Network`; a `BlockingNetwork` never suspends them (`blocking.py`).

Knows HTTP; knows no route and repeats nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

import httpx2

from penstock.client.call import Call, is_proxied

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0  # seconds
MAX_EVENT = 64 << 20  # bytes of one event: a whole answer with its details may come as one
MAX_CONNECTIONS = 1_000  # of one event loop; each chat that is waited for has one


class Network(Protocol):
    """What the client needs of the world. `open` gives an answer whose body is still to come."""

    async def send(self, call: Call) -> httpx2.Response: ...

    def open(self, call: Call) -> AbstractAsyncContextManager[httpx2.Response]: ...

    async def read(self, response: httpx2.Response) -> bytes: ...

    def events(self, response: httpx2.Response) -> AsyncGenerator[httpx2.ServerSentEvent, None]: ...

    async def sleep(self, seconds: float) -> None: ...

    async def aside(self, work: Callable[[], T]) -> T: ...

    async def close(self) -> None: ...


class BlockingNetwork:
    """Blocks the thread that asks. Thread-safe."""

    def __init__(self, base_url: str, headers: dict[str, str]) -> None:
        self._http = httpx2.Client(
            base_url=base_url, headers=headers, trust_env=is_proxied(base_url)
        )

    async def send(self, call: Call) -> httpx2.Response:
        content = call.body() if call.body else None
        return self._http.request(call.method, call.path, content=content, **_options(call))

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[httpx2.Response]:
        with self._http.stream(call.method, call.path, **_options(call)) as response:
            yield response

    async def read(self, response: httpx2.Response) -> bytes:
        return response.read()

    async def events(
        self, response: httpx2.Response
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        for event in httpx2.EventSource(response, max_event_size=MAX_EVENT):
            yield event

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # the thread is the caller's, to be blocked

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    async def close(self) -> None:
        self._http.close()


class AsyncNetwork:
    """Suspends the task that asks. For one event loop."""

    def __init__(self, base_url: str, headers: dict[str, str]) -> None:
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers=headers,
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
            trust_env=is_proxied(base_url),
        )

    async def send(self, call: Call) -> httpx2.Response:
        content = _drawn(call.body()) if call.body else None
        return await self._http.request(call.method, call.path, content=content, **_options(call))

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[httpx2.Response]:
        async with self._http.stream(call.method, call.path, **_options(call)) as response:
            yield response

    async def read(self, response: httpx2.Response) -> bytes:
        return await response.aread()

    async def events(
        self, response: httpx2.Response
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        async for event in httpx2.EventSource(response, max_event_size=MAX_EVENT):
            yield event

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        await self._http.aclose()


def _options(call: Call) -> dict[str, Any]:
    return {
        "params": dict(call.params),
        "json": call.json,
        "headers": dict(call.headers),
        "timeout": httpx2.Timeout(call.timeout, connect=CONNECT_TIMEOUT),
    }


async def _drawn(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
