"""Counts what the engine does: written by the engine's thread, read by any. Knows no clock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from batching.requests import EngineLane
from models.runner import StepOutput

WINDOW = 10  #: seconds


@dataclass(slots=True)
class Totals:
    """Since the start."""

    steps: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    tokens_read: int = 0
    tokens_needed: int = 0
    keys_read: int = 0
    keys_needed: int = 0
    seconds: float = 0.0  #: in steps

    @property
    def padded_share(self) -> float:
        return 1 - self.tokens_needed / self.tokens_read if self.tokens_read else 0.0

    @property
    def padded_share_keys(self) -> float:
        return 1 - self.keys_needed / self.keys_read if self.keys_read else 0.0


@dataclass(slots=True)
class Mean:
    """Of seconds."""

    seconds: float = 0.0
    count: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.seconds += seconds
        self.count += count


@dataclass(slots=True)
class _Second:
    second: int
    tokens: int = 0
    rows: int = 0
    steps: int = 0
    busy: float = 0.0
    between: Mean = field(default_factory=Mean)  #: the tokens of one row
    ttft: dict[EngineLane, Mean] = field(
        default_factory=lambda: {lane: Mean() for lane in EngineLane}
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the last ten seconds."""

    tokens_per_s: float
    rows_per_step: float
    busy_share: float
    time_per_token: float
    ttft: dict[str, float]  #: by lane


class Meter:
    """Totals, and the last seconds one by one."""

    def __init__(self, started: float) -> None:
        self._lock = threading.Lock()
        self._started = started
        self._seconds: deque[_Second] = deque(maxlen=WINDOW + 1)
        self.totals = Totals()

    def record(self, began: float, ended: float, rows: int, output: StepOutput) -> None:
        """One step with something to do for some rows."""
        with self._lock:
            totals = self.totals
            totals.steps += 1
            totals.tokens_out += output.sampled
            totals.tokens_read += output.tokens_read
            totals.tokens_needed += output.tokens_needed
            totals.keys_read += output.keys_read
            totals.keys_needed += output.keys_needed
            totals.seconds += ended - began
            last = self._at(ended)
            last.tokens += output.sampled
            last.rows += rows
            last.steps += 1
            last.busy += ended - began

    def admitted(self, tokens: int, cached: int) -> None:
        with self._lock:
            self.totals.tokens_in += tokens
            self.totals.tokens_cached += cached

    def began(self, now: float, lane: EngineLane, seconds: float) -> None:
        """A row had its first token so long after it arrived."""
        with self._lock:
            self._at(now).ttft[lane].add(seconds)

    def ended(self, now: float, seconds: float, tokens: int) -> None:
        """A row ended so long after its first token, with so many more."""
        with self._lock:
            self._at(now).between.add(seconds, tokens)

    def rates(self, now: float) -> Rates:
        with self._lock:
            recent = [s for s in self._seconds if s.second > int(now) - WINDOW]
            tokens = sum(s.tokens for s in recent)
            rows = sum(s.rows for s in recent)
            steps = sum(s.steps for s in recent)
            busy = sum(s.busy for s in recent)
            between = _mean(s.between for s in recent)
            ttft = {lane.value: _mean(s.ttft[lane] for s in recent) for lane in EngineLane}
        # The window begins at a full second, so its span is between nine and ten seconds.
        span = max(min(now - self._started, now - int(now) + WINDOW - 1), 1e-3)
        return Rates(
            tokens_per_s=tokens / span,
            rows_per_step=rows / steps if steps else 0.0,
            busy_share=min(1.0, busy / span),
            time_per_token=between,
            ttft=ttft,
        )

    def _at(self, now: float) -> _Second:
        second = int(now)
        if not self._seconds or self._seconds[-1].second != second:
            self._seconds.append(_Second(second))
        return self._seconds[-1]


def _mean(parts: Iterable[Mean]) -> float:
    seconds, count = 0.0, 0
    for part in parts:
        seconds, count = seconds + part.seconds, count + part.count
    return seconds / count if count else 0.0
