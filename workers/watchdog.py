"""Ends a process that is stuck: an engine that makes no step or gave up, or a thread that died.
Whoever started it starts it again, and the leases of its slot are freed at once. Fences leases
meanwhile, since the heartbeat itself may hang in a database that does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from batching.engine import Engine
from penstock.telemetry import get_logger
from workers.background import Background

log = get_logger(__name__)

EXIT_STUCK: Final = 70


class Watchdog(Background):
    """Looks once a second. `limit` is in seconds."""

    def __init__(
        self,
        *,
        engine: Engine,
        limit: float,
        threads: Sequence[Callable[[], bool]],
        fence: Callable[[], None],
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__("watchdog")
        self._engine = engine
        self._limit = limit
        self._threads = threads
        self._fence = fence
        self._exit_process = exit_process

    def _run(self) -> None:
        while not self._stopping.wait(1.0):
            self._fence()
            age = self._engine.stats().last_step_age
            if age > self._limit:
                self._exit("engine.stuck", seconds=round(age))
            if not self._engine.alive() or not all(alive() for alive in self._threads):
                self._exit("thread.died")

    def _exit(self, event: str, **fields: object) -> None:
        if not self._stopping.is_set():
            log.error(event, **fields)
            self._exit_process(EXIT_STUCK)
