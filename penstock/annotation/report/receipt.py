"""What a run costs, from the counters that the service's workers keep since their start.

Other jobs of the same time are counted, too. Knows no job and no table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from penstock.annotation.records import Receipt
from penstock.errors import PenstockError
from penstock.schemas.health import Stats, WorkerStats

EVERY = 5.0  # seconds between two looks: what a worker did after the last one is lost with it
SETTLED = 3.0  # seconds within which every worker that lives tells its figures anew
SOON = 0.2
SUMMED = ("engine_seconds", "prefix_tokens", "energy", "tokens_read", "tokens_needed")
PEAK = "peak_memory"

Counters = dict[str, float]


class Asked(Protocol):
    """A client, as far as it is needed here."""

    def stats(self) -> Stats: ...


class Meter:
    """Looks at the counters now, and again when it is told.

    `state` can be stored as JSON and given to another process's Meter, which goes on from there. A
    worker's life is told apart by its boot id: one that was not there at the first look counts
    from zero. A service that tells nothing, or not to this key, leaves the receipt's fields None.
    """

    def __init__(self, client: Asked, state: Mapping[str, object] | None = None) -> None:
        self._client = client
        self._first = _lives(state, "first")
        self._last = _lives(state, "last")
        self._next = time.monotonic() + EVERY
        self._ask()
        if not state:
            self._first = {life: dict(counters) for life, counters in self._last.items()}

    @property
    def state(self) -> dict[str, object]:
        return {"first": self._first, "last": self._last}

    def look(self) -> None:
        """Ask the service, every `EVERY` seconds at most. Never raises for a service away."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._ask()

    def complete(self, receipt: Receipt) -> Receipt:
        """The receipt with what the workers did since the first look. Waits until each of them has
        told it, for `SETTLED` seconds at most."""
        began = time.monotonic()
        while self._ask() > (passed := time.monotonic() - began) and passed < SETTLED:
            time.sleep(SOON)
        prefix, read, needed = map(self._sum, ("prefix_tokens", "tokens_read", "tokens_needed"))
        return replace(
            receipt,
            engine_seconds=self._sum("engine_seconds"),
            padded_share=1 - needed / read if read and needed is not None else None,
            prefix_tokens=None if prefix is None else round(prefix),
            energy=self._sum("energy"),
            peak_memory=self._peak(),
        )

    def _ask(self) -> float:
        """The age in seconds of the oldest figures that there are."""
        try:
            workers = self._client.stats().workers
        except PenstockError:
            return 0.0
        telling = [worker for worker in workers if self._see(worker)]
        return max((worker.heartbeat_age for worker in telling), default=0.0)

    def _see(self, worker: WorkerStats) -> bool:
        """Keep its counters; False where it has none or does not say since when."""
        counters = {
            name: float(value)
            for name in (*SUMMED, PEAK)
            if isinstance(value := worker.stats.get(name), int | float)
        }
        boot = worker.stats.get("boot")
        if not counters or not isinstance(boot, str):
            return False
        self._last[boot] = counters
        return True

    def _sum(self, name: str) -> float | None:
        found = [
            counters[name] - self._first.get(life, {}).get(name, 0.0)
            for life, counters in self._last.items()
            if name in counters
        ]
        return sum(found) if found else None

    def _peak(self) -> int | None:
        peaks = [counters[PEAK] for counters in self._last.values() if PEAK in counters]
        return round(max(peaks)) if peaks else None


def _lives(state: Mapping[str, object] | None, part: str) -> dict[str, Counters]:
    lives = (state or {}).get(part)
    if not isinstance(lives, Mapping):
        return {}
    return {
        str(life): {str(name): float(value) for name, value in counters.items()}
        for life, counters in lives.items()
    }
