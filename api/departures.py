"""Cancels a streamed chat when everybody who followed it has gone, and nobody came back in time.

A dropped connection looks like a client that left, so a while is waited first. Followers are
counted in Redis, since a client may come back by another process; where Redis is away nothing is
cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from redis import RedisError

from api import chats
from api.dependencies import Parts
from storage.records import Batch

EXPIRY: Final = 3_600  # seconds that a count is kept
QUICK: Final = 1.0  # seconds that Redis may take


class Presence:
    """One client that follows one chat. `over`: nothing follows from its leaving, since there is
    nothing more to come, it may come whenever it comes, or who serves the client cancels."""

    def __init__(self) -> None:
        self.over = False


class Departures:
    """For one event loop."""

    def __init__(self) -> None:
        self._leaving: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @asynccontextmanager
    async def following(self, parts: Parts, batch: Batch) -> AsyncGenerator[Presence, None]:
        """A client follows, until the end of the block. Who gave an Idempotency-Key said that it
        will come back, and what was not posted to be followed runs in any case."""
        presence = Presence()
        if batch.body_hash is not None or not batch.streamed:
            yield presence
            return
        counted = await self._count(parts, batch.id, 1) is not None
        try:
            yield presence
        finally:
            # No await here: the client's own task may be in the middle of its end. Who is sent away
            # because the process ends may be back at another, and would be counted twice.
            if counted and (parts.waiters.closing or not presence.over):
                task = asyncio.create_task(self._leave(parts, batch))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Count down who left just now, and cancel nothing: they may be back at another process."""
        self._closing.set()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=2 * QUICK)
        for task in self._leaving:
            task.cancel()

    async def _leave(self, parts: Parts, batch: Batch) -> None:
        await self._count(parts, batch.id, -1)
        if parts.waiters.closing or await self._closes_within(parts.config.leave_grace):
            return
        left = await self._count(parts, batch.id, 0)
        if left is not None and left <= 0 and not parts.waiters.closing:
            await chats.abandon(parts, batch)

    async def _closes_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def _count(self, parts: Parts, batch_id: str, change: int) -> int | None:
        """Followers after the change; None where Redis is away."""
        key = f"{parts.wake_ups.key_prefix}followers:{batch_id}"
        try:
            async with (
                asyncio.timeout(QUICK),
                parts.pieces.client.pipeline(transaction=False) as pipeline,
            ):
                pipeline.incrby(key, change)
                pipeline.expire(key, EXPIRY)
                return int((await pipeline.execute())[0])
        except (RedisError, OSError):
            return None
