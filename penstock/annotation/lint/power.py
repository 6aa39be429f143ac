"""What the devices draw while something is measured, by the counters that workers keep."""

from __future__ import annotations

import time
from typing import Protocol

from penstock.schemas.health import Stats

TOLD_WITHIN = 6.0  # seconds in which every worker has told its counters again
LEAST = 0.5  # seconds between two tellings, below which a difference says nothing
PAUSE = 0.5  # seconds


class Asked(Protocol):
    """A client, as far as it is needed here."""

    def stats(self) -> Stats: ...


class PowerMeter:
    """Begins when it is made. A worker's counters are as old as its last sign of life."""

    def __init__(self, client: Asked) -> None:
        self._client = client
        self._before = self._joules()

    def watts(self) -> float | None:
        """The mean since the beginning, of all workers; None where one of them does not tell."""
        until = time.monotonic() + TOLD_WITHIN
        while self._before:
            after = self._joules()
            powers = [
                (joules - self._before[life][1]) / (at - self._before[life][0])
                for life, (at, joules) in after.items()
                if life in self._before and at - self._before[life][0] >= LEAST
            ]
            if len(powers) == len(self._before):
                return sum(powers)
            if time.monotonic() > until:
                return None
            time.sleep(PAUSE)
        return None

    def _joules(self) -> dict[str, tuple[float, float]]:
        """By a worker's life: a moment, and the joules until then."""
        now = time.monotonic()
        return {
            str(worker.stats.get("boot") or worker.slot): (
                now - worker.heartbeat_age,
                float(joules),
            )
            for worker in self._client.stats().workers
            if isinstance(joules := worker.stats.get("energy"), int | float)
        }
