"""What a worker takes of its machine. Asks for it in a thread of its own: a driver that hangs holds
up no heartbeat. Knows no queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from models import host
from models.energy import Energy, counters_of
from workers.background import Background

PERIOD: Final = 2.0  # seconds that a figure is of


def gpu_memory(device: str) -> int | None:
    """Bytes in use on the device that a model is on; None: it is no GPU, or cannot be asked."""
    if not device.startswith("cuda"):
        return None
    from models.device import used_memory  # loads torch, which a model on a GPU has loaded anyway

    return used_memory(device)


def peak_memory(device: str) -> int:
    """The most bytes that this process has had: of its GPU, or of the machine's memory."""
    if not device.startswith("cuda"):
        return host.peak_memory()
    from models.device import peak_memory as of_gpu

    return of_gpu(device)


class Usage(Background):
    """`clock` and `busy` tell seconds: as they go by, and of a processor's work in this process."""

    def __init__(
        self,
        device: str,
        *,
        memory: Callable[[str], int | None] = gpu_memory,
        peak: Callable[[str], int] = peak_memory,
        energy: Energy | None = None,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
    ) -> None:
        super().__init__("usage")
        self._device = device
        self._memory, self._peak = memory, peak
        self._energy = energy or Energy(partial(counters_of, device))
        self._clock, self._busy = clock, busy
        self._last = clock(), busy()
        self._figures: Mapping[str, float] = {}

    def stats(self) -> Mapping[str, float]:
        """As of the last look: `cpu_usage_percent`, where 100 is one processor, and on a GPU
        `gpu_memory_usage_bytes`, of all who use it. Since the start: `peak_memory` in bytes, and
        `energy` in joules where the device tells, of all who use it. Never blocks."""
        return self._figures

    def look(self) -> None:
        """Take new figures."""
        now, busy = self._clock(), self._busy()
        seconds, worked = now - self._last[0], busy - self._last[1]
        self._last = now, busy
        figures: dict[str, float] = {}
        if seconds > 0:
            figures["cpu_usage_percent"] = round(100 * worked / seconds, 1)
        if (used := self._memory(self._device)) is not None:
            figures["gpu_memory_usage_bytes"] = used
        figures["peak_memory"] = self._peak(self._device)
        if (joules := self._energy.look()) is not None:
            figures["energy"] = round(joules, 3)
        self._figures = figures

    def _run(self) -> None:
        self.look()  # what the device takes from here on is counted
        while not self._stopping.wait(PERIOD):
            self.look()
