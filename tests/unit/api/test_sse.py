"""A stream on the wire: pings beside its events, and an end that cleans up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from api import sse


async def _events(closed: list[bool], wait: asyncio.Event) -> AsyncGenerator[bytes, None]:
    try:
        yield sse.event({"text": "line\nend \u2028 ü"}, id="1", name="result")
        await wait.wait()
    finally:
        closed.append(True)


def test_a_stream_is_pinged_and_closed_when_the_client_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "PING", 0.01)
    sent: list[MutableMapping[str, Any]] = []
    closed: list[bool] = []

    async def main() -> None:
        pinged = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await pinged.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if message.get("body") == b": ping\n\n":
                pinged.set()

        stream = sse.EventStream(_events(closed, asyncio.Event()))
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    asyncio.run(main())

    start, event, ping = sent[:3]
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-store"
    assert event["body"].decode() == (
        'event: result\ndata: {"text": "line\\nend \u2028 ü"}\nid: 1\n\n'
    )
    assert ping["body"] == b": ping\n\n"
    assert closed == [True]
