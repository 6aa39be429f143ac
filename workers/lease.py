"""One claimed shard while this worker holds it: which prompts are open, and when it is over.

Knows no SQL, no engine and no Celery; every method is safe to call from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import fmean

from storage.records import ClaimedShard, Params
from storage.states import Lane


class Lease:
    """A shard under an epoch. It ends when every prompt is stored or given back, or when it is
    lost to another epoch."""

    def __init__(self, shard: ClaimedShard, clock: Callable[[], float] = time.monotonic) -> None:
        self.shard = shard
        self._clock = clock
        self._lock = threading.Lock()
        self._open = {request.position for request in shard.requests}
        self._own_params = {
            request.position: request.params
            for request in shard.requests
            if request.params is not None
        }
        self._over = threading.Event()
        self.started = clock()
        self.extended_at = self.started
        self.lost = False
        #: A commit is under way: absence from the leased shards may be its own doing.
        self.committing = False
        self.returned = 0
        self.ok = 0
        self.failed = 0
        self.tokens = 0
        self.reused = 0
        #: By position, earlier turns that were left out; only of prompts that could lose some.
        self.dropped: dict[int, int] = {}
        #: Prompts that wait or run in the engine.
        self.unended = len(self._open)
        self._ttft: list[float] = []  # seconds, of the rows that had a first token
        self._cached_tokens = 0
        if not self._open:
            self._over.set()

    @property
    def key(self) -> tuple[int, int]:
        return self.shard.id, self.shard.epoch

    def request_id(self, position: int) -> str:
        """The engine's name for a prompt: shard, epoch, position."""
        return f"{self.shard.id}.{self.shard.epoch}.{position}"

    def asked_of(self, position: int) -> Params:
        """The parameters of one prompt: its own, or the job's."""
        return self._own_params.get(position, self.shard.params)

    def open_ids(self) -> list[str]:
        """Prompts with no stored outcome yet, by the engine's names."""
        with self._lock:
            return [self.request_id(position) for position in sorted(self._open)]

    @property
    def deadline(self) -> float | None:
        """When the job expires, by the clock of this lease."""
        left = self.shard.seconds_left
        return None if left is None else self.started + left

    @property
    def open_count(self) -> int:
        return len(self._open)

    def extend(self) -> None:
        """The database has just confirmed the lease."""
        self.extended_at = self._clock()

    def unconfirmed_for(self) -> float:
        """Seconds since the database last confirmed the lease."""
        return self._clock() - self.extended_at

    def stored(self, position: int, *, failed: bool, tokens: int, from_cache: bool = False) -> None:
        """It has an outcome; `from_cache`: one that took no work."""
        with self._lock:
            if position not in self._open:
                return
            self._open.discard(position)
            self.failed += failed
            self.ok += not failed
            self.reused += from_cache
            self.tokens += 0 if from_cache else tokens
            self._settle()

    def ended(self) -> None:
        """The engine is done with one prompt, or never had it."""
        with self._lock:
            self.unended -= 1

    def entered(self) -> None:
        """The engine gets one prompt that it had not."""
        with self._lock:
            self.unended += 1

    def measured(self, ttft: float | None, cached_tokens: int) -> None:
        """What the engine says of a prompt that ran: seconds to its first token, and tokens of it
        whose keys and values were there."""
        with self._lock:
            self._cached_tokens += cached_tokens
            if ttft is not None:
                self._ttft.append(ttft)

    def give_back(self, position: int) -> None:
        """The engine will not run it; it goes back to the queue with the shard."""
        with self._lock:
            if position in self._open:
                self._open.discard(position)
                self.returned += 1
                self._settle()

    def lose(self) -> bool:
        """Another epoch owns the shard. True the first time."""
        with self._lock:
            first = not self.lost and not self._over.is_set()
            self.lost = True
            self._over.set()
            return first

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is over."""
        return self._over.wait(timeout)

    def summary(self) -> dict[str, object]:
        """What Flower shows."""
        seconds = max(self._clock() - self.started, 1e-6)
        summary: dict[str, object] = {
            "shard": self.shard.id,
            "ok": self.ok,
            "failed": self.failed,
            "tokens_per_s": round(self.tokens / seconds),
            "seconds": round(seconds, 2),
        }
        if self._ttft:
            summary["ttft"] = round(fmean(self._ttft), 3)
        if self._cached_tokens:
            summary["cached_tokens"] = self._cached_tokens
        if self.reused:
            summary["from_cache"] = self.reused
        if self.returned:
            summary["returned"] = self.returned
        if self.lost:
            summary["lost"] = True
        return summary

    def _settle(self) -> None:
        if not self._open:
            self._over.set()


class Leases:
    """All shards that this process holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Lease] = {}

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._held[lease.key] = lease

    def discard(self, lease: Lease) -> None:
        with self._lock:
            self._held.pop(lease.key, None)

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self._held.values())

    def unended(self, lane: Lane) -> int:
        """Prompts of a lane that wait or run in this process."""
        return sum(
            lease.unended for lease in self.all() if lease.shard.lane is lane and not lease.over
        )

    def find(self, request_id: str) -> tuple[Lease, int] | None:
        """The lease and position behind an engine's request id."""
        shard, epoch, position = map(int, request_id.split("."))
        with self._lock:
            lease = self._held.get((shard, epoch))
        return (lease, position) if lease else None
