"""Asks the parts behind the API how they are: each by itself, each within two seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from penstock.errors import Unavailable
from storage import fleet
from storage.database import Database
from storage.records import WorkerRecord
from workers.queues import WakeUps

T = TypeVar("T")

LIMIT: Final = 2.0  # seconds for each check
OK: Final = "ok"


class Probes:
    """Has threads of its own: readiness is asked most when all others are busy."""

    def __init__(self, database: Database, wake_ups: WakeUps, models: Set[str]) -> None:
        self._database = database
        self._wake_ups = wake_ups
        self._models = models
        self._threads = CapacityLimiter(4)

    async def check(self) -> dict[str, str]:
        """`ok`, or what is wrong, for database, broker and worker."""
        workers, broker = await asyncio.gather(
            self._within(self._live_workers), self._within(self._wake_ups.ping)
        )
        return {
            "database": OK if workers is not None else "no answer",
            "broker": OK if broker else "no answer",
            "worker": self._judge(workers),
        }

    def _judge(self, workers: list[WorkerRecord] | None) -> str:
        if workers is None:
            return "unknown: the database does not answer"
        if any(worker.model in self._models for worker in workers):
            return OK
        return f"no live worker serves {' or '.join(sorted(self._models))}"

    def _live_workers(self) -> list[WorkerRecord]:
        with self._database.begin() as conn:
            return fleet.workers(conn)

    async def _within(self, work: Callable[[], T]) -> T | None:
        try:
            with anyio.fail_after(LIMIT):
                return await to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
        except (TimeoutError, Unavailable):
            return None
