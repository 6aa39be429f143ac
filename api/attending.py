"""Answers for a client that is there: given up when it leaves, and counted. Knows no route."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from api import chats
from api.dependencies import Parts
from api.errors import problem_of
from penstock.errors import PenstockError
from storage.records import Batch

T = TypeVar("T")

COMPLETED: Final = "completed"  #: to the metrics, beside the codes of errors


async def attend(
    request: Request,
    parts: Parts,
    batch: Batch,
    answer: Coroutine[Any, Any, T],
    *,
    cancel_on_leave: bool,
) -> T:
    """The answer, unless the client goes away first."""
    started = time.monotonic()
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            if cancel_on_leave:
                await chats.abandon(parts, batch)
            raise ClientDisconnect
        found = await answering
    except PenstockError as error:
        count(parts, batch, started, problem_of(error).code)
        raise
    finally:
        answering.cancel()
        leaving.cancel()
    count(parts, batch, started, COMPLETED)
    return found


def count(parts: Parts, batch: Batch, started: float, status: str) -> None:
    """One answer more. `started`: the monotonic clock."""
    parts.metrics.count_chat(batch.model, status, time.monotonic() - started)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
