"""Requests and tokens a minute, counted in Redis for all processes of the API.

A limit is worth less than an answer: without Redis nothing is counted, and a warning says so. One
that hangs costs a request half a second, once in a while. Knows no HTTP but header names.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil, floor
from typing import Final, Literal

from limits.aio.storage import RedisStorage
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from api.current import current
from penstock.errors import LimitReached, TooLarge
from penstock.telemetry import get_logger

log = get_logger(__name__)

Kind = Literal["requests", "tokens"]

WINDOW: Final = 60  # seconds
PATIENCE: Final = 0.5  # seconds that Redis has for one count, a busy event loop's pauses included
PAUSE: Final = 5.0  # seconds without a count after it did not answer
WARN_EVERY: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window as it stands: what the last minute counts for less with every second."""

    previous: int
    previous_left: float  #: seconds for which any of it counts
    present: int
    present_left: float  #: seconds until it no longer counts, the next minute included

    @property
    def used(self) -> int:
        """What counts at this moment."""
        return floor(self.previous * self.previous_left / WINDOW) + self.present

    @property
    def reset(self) -> float:
        """Seconds until nothing counts any more."""
        return self.present_left if self.present else self.previous_left * (self.previous > 0)

    def wait(self, limit: int, cost: int) -> float:
        """Seconds until `cost` fits, if nobody else comes."""
        over = self.used + cost - limit
        if over <= 0:
            return 0.0
        turn = max(0.0, self.present_left - WINDOW)  # then the present minute is the previous one
        if self.previous and over <= self.previous * min(turn, self.previous_left) / WINDOW:
            return over * WINDOW / self.previous
        if self.present <= limit - cost:
            return turn
        return turn + WINDOW * (1 - (limit - cost) / self.present)


class RateLimiter:
    """Counts for owners. Without a `url` it counts nothing. For one event loop."""

    def __init__(self, url: str | None, prefix: str) -> None:
        self._storage = None if url is None else _open(url, prefix)
        self._resume_at = 0.0
        self._warned_at = -WARN_EVERY

    async def charge(self, owner: str, kind: Kind, limit: int, cost: int = 1) -> None:
        """Count `cost`, and let the answer's headers say how it stands. Raises `LimitReached` where
        it does not fit now, `TooLarge` where it never will; then nothing is counted."""
        if cost > limit:
            raise TooLarge(f"This takes about {cost} {kind}, and the limit is {limit} per minute.")
        counted = await self._count(owner, kind, limit, cost)
        if counted is None:
            return
        fits, window = counted
        current().headers.update(_headers(kind, limit, window))
        if not fits:
            seconds = max(1, ceil(window.wait(limit, cost)))
            raise LimitReached(
                f"Your limit of {limit} {kind} per minute is reached. Try again in {seconds} s.",
                retry_after=seconds,
            )

    async def close(self) -> None:
        """Close the connections."""
        if self._storage is not None:
            await self._storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]

    async def _count(
        self, owner: str, kind: Kind, limit: int, cost: int
    ) -> tuple[bool, Window] | None:
        """Whether it fitted, and the window after it; None where Redis is not to be asked."""
        if self._storage is None or time.monotonic() < self._resume_at:
            return None
        name = f"{kind}:{owner}"
        try:
            async with asyncio.timeout(PATIENCE):
                fits = await self._storage.acquire_sliding_window_entry(name, limit, WINDOW, cost)
                return fits, Window(*await self._storage.get_sliding_window(name, WINDOW))
        except (TimeoutError, OSError, RedisError) as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        now = time.monotonic()
        self._resume_at = now + PAUSE
        if now - self._warned_at >= WARN_EVERY:
            self._warned_at = now
            log.warning("rates.uncounted", error=type(error).__name__)


def _open(url: str, prefix: str) -> RedisStorage:
    return RedisStorage(
        limits_url(url),
        implementation="redispy",
        key_prefix=f"{prefix}rates",
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # handed on as it is
    )


def limits_url(url: str) -> str:
    """A broker's URL, as Celery writes it, in the words of `limits`."""
    scheme, mark, rest = url.partition("://")
    if scheme == "redis+socket":
        return f"async+redis+unix://{rest.replace('virtual_host=', 'db=')}"
    return f"async+{scheme}{mark}{rest}"


def _headers(kind: Kind, limit: int, window: Window) -> dict[str, str]:
    """OpenAI's names and forms."""
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(max(0, limit - window.used)),
        f"x-ratelimit-reset-{kind}": duration(window.reset),
    }


def duration(seconds: float) -> str:
    """`6m0s`, `1.5s`, `20ms`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
