"""What a load test is to do. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.errors import InvalidRequest

Api = Literal["openai", "penstock"]
Kind = Literal["chat", "job"]

MAX_CONCURRENCY = 1_000
MAX_DURATION = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate` in requests a second: they arrive at random, whether the earlier ones have ended or
    not. Without it, `concurrency` clients ask one after another; with it, at most as many requests
    are open, and one that had to wait for that counts from when it was due."""

    kind: Kind = "chat"
    concurrency: int = 8
    rate: float | None = None
    count: int | None = None  #: requests; None: as many as fit
    duration: float = 30.0  #: seconds in which requests are sent
    timeout: float = 120.0  #: seconds of one request, from its sending to its end
    warmup: int = 4  #: requests before, which are not counted
    job_size: int = 100  #: prompts of a job
    temperature: float = 0.7
    seed: int = 0

    def check(self) -> None:
        """Raises InvalidRequest that names the option."""
        bounds: tuple[tuple[str, float, float, float], ...] = (
            ("concurrency", self.concurrency, 1, MAX_CONCURRENCY),
            ("rate", 1 if self.rate is None else self.rate, 0.001, 100_000),
            ("count", 1 if self.count is None else self.count, 1, 10_000_000),
            ("duration", self.duration, 0.1, MAX_DURATION),
            ("timeout", self.timeout, 0.1, MAX_DURATION),
            ("warmup", self.warmup, 0, 10_000),
            ("job-size", self.job_size, 1, 1_000_000),
        )
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise InvalidRequest(f"--{name} has to be from {least:g} to {most:,g}.", param=name)
