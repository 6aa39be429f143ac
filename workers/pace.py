"""How fast rows end, of late. Knows nothing of what they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

WINDOW: Final = 1.0  # seconds


class Pace:
    """Counts rows in windows of `WINDOW` seconds. For one thread that counts; any may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._rate = 0.0

    def count(self) -> None:
        """A row ended."""
        self._count += 1
        elapsed = self._clock() - self._since
        if elapsed >= WINDOW:
            self._rate = self._count / elapsed
            self._since += elapsed
            self._count = 0

    @property
    def rate(self) -> float:
        """Rows per second in the last window that is over. After a pause that is the pause."""
        return self._rate
