"""Server-sent events on the wire: their form, pings, and an end that cleans up.

Knows nothing of what they tell.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final

from fastapi import Header
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.responses import Response
from starlette.types import Message, Send

PING: Final = 15.0  # seconds
#: The id of a stream's last event. A browser that comes back with it is told to stay away.
LAST: Final = "end"
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
MEDIA_TYPE: Final = EventSourceResponse.media_type

LastEventId = Annotated[
    str | None,
    Header(description="Where a stream was cut: the id of the last event that came."),
]
#: What the OpenAPI document says of a stream: one event after the other.
EVENTS: Final = {
    "itemSchema": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("data", "event", "id")},
        "required": ["data"],
    }
}


def event(data: Mapping[str, object], *, id: str | None = None, name: str | None = None) -> bytes:
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False), id=id, event=name)


def over() -> Response:
    """The answer to who comes back after the last event: an `EventSource` then ends."""
    return Response(status_code=204)


def documented(description: str) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that streams."""
    return {
        200: {"description": description, "content": {MEDIA_TYPE: EVENTS}},
        204: {"description": "`Last-Event-ID` is of the last event: there are no more."},
    }


class EventStream(EventSourceResponse):
    """Sends what `events` gives, and a ping between them now and then; closes `events` at once when
    the client leaves."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(events, headers={**HEADERS, **(headers or {})})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        sending = asyncio.Lock()

        async def alone(message: Message) -> None:
            async with sending:
                await send(message)

        async def ping() -> None:
            while True:
                await asyncio.sleep(PING)
                if not sending.locked():  # else nothing is taken at the moment
                    await alone({"type": "http.response.body", "body": PINGED, "more_body": True})

        start = {"status": self.status_code, "headers": self.raw_headers}
        await alone({"type": "http.response.start", **start})
        pinging = asyncio.create_task(ping())
        try:
            async for piece in self._events:
                await alone({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            pinging.cancel()
            await self._events.aclose()
        await alone({"type": "http.response.body", "body": b"", "more_body": False})


PINGED: Final = KEEPALIVE_COMMENT
