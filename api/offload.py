"""Keeps blocking work off the event loop: each kind in few threads, and under a deadline.

Jobs that are being stored, what nobody waits for, and everything else have threads of their own, so
that polling stays quick while large jobs come in; together they fit the connection pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection

from penstock.errors import Unavailable
from storage.database import Database

T = TypeVar("T")

QUICK_LIMIT: Final = 10.0  # seconds, with the wait for a thread
INTAKE_LIMIT: Final = 30.0
INTAKE_SHARE: Final = 3  # tenths of the connections
BACKGROUND_THREADS: Final = 1
FILE_THREADS: Final = 4


class Offload:
    """Runs transactions and other blocking calls for coroutines."""

    def __init__(self, database: Database, connections: int) -> None:
        self._database = database
        intake = max(1, connections * INTAKE_SHARE // 10)
        # One connection stays free for whoever watches the database for the waiting clients.
        self._quick = CapacityLimiter(max(1, connections - intake - BACKGROUND_THREADS - 1))
        self._intake = CapacityLimiter(intake)
        self._background = CapacityLimiter(BACKGROUND_THREADS)
        self._parsing = CapacityLimiter(2)
        self._files = CapacityLimiter(FILE_THREADS)

    async def read(self, work: Callable[[Connection], T], limit: float = QUICK_LIMIT) -> T:
        """`work` in a short transaction. Raises `Unavailable` after `limit` seconds."""
        return await _within(limit, self._quick, lambda: self._database.transact(work))

    async def store(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction that takes a job in. Raises `Unavailable` after 30 s."""
        return await _within(INTAKE_LIMIT, self._intake, lambda: self._database.transact(work))

    async def background(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction that nobody waits for, however long it takes."""
        return await to_thread.run_sync(
            lambda: self._database.transact(work), limiter=self._background, abandon_on_cancel=True
        )

    async def files(self, work: Callable[[], T]) -> T:
        """Reading and writing files."""
        return await to_thread.run_sync(work, limiter=self._files)

    async def parse(self, work: Callable[[], T]) -> T:
        """Processor time without a database."""
        return await to_thread.run_sync(work, limiter=self._parsing)


async def _within(seconds: float, limiter: CapacityLimiter, work: Callable[[], T]) -> T:
    try:
        with anyio.fail_after(seconds):
            # Abandoned, not stopped: the pool and the statement timeout end such a thread later.
            return await to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
    except TimeoutError:
        raise Unavailable("The database did not answer in time.") from None
