"""Counts what the engine does: written by the engine's thread, read by any. Knows no clock."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

WINDOW = 10  #: seconds


@dataclass(slots=True)
class Totals:
    """Since the start."""

    steps: int = 0
    rows: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_read: int = 0
    tokens_needed: int = 0

    @property
    def padded_share(self) -> float:
        return 1 - self.tokens_needed / self.tokens_read if self.tokens_read else 0.0


@dataclass(slots=True)
class _Second:
    second: int
    tokens: int = 0
    rows: int = 0
    steps: int = 0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the last ten seconds."""

    tokens_per_s: float
    rows_per_step: float
    busy_share: float


class Meter:
    """Totals, and the last seconds one by one."""

    def __init__(self, started: float) -> None:
        self._lock = threading.Lock()
        self._started = started
        self._seconds: deque[_Second] = deque(maxlen=WINDOW + 1)
        self.totals = Totals()

    def record(self, began: float, ended: float, rows: int, read: int, needed: int) -> None:
        """One step: each of its rows brought one token."""
        with self._lock:
            totals = self.totals
            totals.steps += 1
            totals.rows += rows
            totals.tokens_out += rows
            totals.tokens_read += read
            totals.tokens_needed += needed
            second = int(ended)
            if not self._seconds or self._seconds[-1].second != second:
                self._seconds.append(_Second(second))
            last = self._seconds[-1]
            last.tokens += rows
            last.rows += rows
            last.steps += 1
            last.busy += ended - began

    def admitted(self, tokens: int) -> None:
        with self._lock:
            self.totals.tokens_in += tokens

    def rates(self, now: float) -> Rates:
        with self._lock:
            recent = [s for s in self._seconds if s.second > int(now) - WINDOW]
            tokens = sum(s.tokens for s in recent)
            rows = sum(s.rows for s in recent)
            steps = sum(s.steps for s in recent)
            busy = sum(s.busy for s in recent)
        # The window begins at a full second, so its span is between nine and ten seconds.
        span = max(min(now - self._started, now - int(now) + WINDOW - 1), 1e-3)
        return Rates(tokens / span, rows / steps if steps else 0.0, min(1.0, busy / span))
