"""Stores outcomes: one statement per shard, when a second is over or the shard has no more to
come. A lost database is waited for and the same statement repeated, since it is idempotent; nothing
is dropped but what a newer epoch owns."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Connection

from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import leases, lifecycle, response_cache
from storage.database import Database
from storage.records import CommitReceipt, Outcome
from workers.background import JOIN_TIMEOUT, Background
from workers.lease import Lease
from workers.outcomes import with_dropped

log = get_logger(__name__)

MAX_DETAILS: Final = 4_000_000  # characters of details in one statement
MAX_DELAY: Final = 1.0  # seconds
MAX_BACKOFF: Final = 5.0  # seconds


def _nobody(lease: Lease, outcomes: list[Outcome]) -> None:
    """Nobody waits for what was stored."""


class Committer(Background):
    """A thread of its own, so that the engine never waits for the database. `on_settled` is called
    with outcomes that were stored, or refused for good."""

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        on_lost: Callable[[Lease], None],
        on_settled: Callable[[Lease, list[Outcome]], None] = _nobody,
    ) -> None:
        super().__init__("committer")
        self._database = database
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._on_settled = on_settled
        self._inbox: deque[tuple[float, Lease, Outcome]] = deque()
        self._wanted = threading.Event()
        self._buffer: dict[Lease, dict[int, Outcome]] = defaultdict(dict)
        self._since: dict[Lease, float] = {}

    def put(self, lease: Lease, outcome: Outcome) -> None:
        """Hand over one outcome; never blocks. What waits is bounded: while the database is away
        the engine admits no more rows than were admitted ahead."""
        dropped = lease.dropped.get(outcome.position)
        if dropped is not None and outcome.text is not None:
            outcome = with_dropped(outcome, dropped)
        self._inbox.append((time.monotonic(), lease, outcome))
        if lease.unended == 0:  # to wake a thread costs the engine more than to leave it asleep
            self._wanted.set()

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """Store what is there, then end. False when the database did not take it in time."""
        self._stopping.set()
        self._wanted.set()
        return super().stop(timeout)

    def _run(self) -> None:
        while not (self._stopping.is_set() and not self._inbox and not self._buffer):
            self._take()
            for lease in self._due():
                self._flush(lease)

    def _take(self) -> None:
        """Wait for the last outcome of a shard, at most until the oldest one here is due; take all
        there are."""
        timeout = MAX_DELAY
        if self._since:
            timeout = max(0.0, min(self._since.values()) + MAX_DELAY - time.monotonic())
        self._wanted.wait(timeout)
        self._wanted.clear()
        while self._inbox:
            since, lease, outcome = self._inbox.popleft()
            self._buffer[lease][outcome.position] = outcome
            self._since.setdefault(lease, since)

    def _due(self) -> list[Lease]:
        now = time.monotonic()
        return [
            lease
            for lease, outcomes in self._buffer.items()
            if self._stopping.is_set()
            or lease.over
            or len(outcomes) >= lease.open_count
            or now - self._since[lease] >= MAX_DELAY
        ]

    def _flush(self, lease: Lease) -> None:
        outcomes = list(self._buffer.pop(lease).values())
        self._since.pop(lease)
        lease.committing = True
        for portion in _portions(outcomes):
            if not self._store(lease, portion):
                break
        lease.committing = False
        self._on_settled(lease, outcomes)

    def _store(self, lease: Lease, outcomes: list[Outcome]) -> bool:
        receipt = self._commit(lease, outcomes)
        if receipt is None or not receipt.held:
            log.warning("commit.refused", shard=lease.shard.id, epoch=lease.shard.epoch)
            self._on_lost(lease)
            return False
        lease.extend()
        if receipt.batch_done:  # before the lease ends: the next claim may be of the turn after it
            self._finalize(lease.shard.batch_id)
        for outcome in outcomes:
            lease.stored(
                outcome.position,
                failed=outcome.error_code is not None,
                tokens=outcome.completion_tokens,
                from_cache=outcome.from_cache,
            )
        return True

    def _commit(self, lease: Lease, outcomes: list[Outcome]) -> CommitReceipt | None:
        """Repeat until the database answers; None when told to stop while it is away."""
        backoff = 0.1
        while True:
            try:
                return self._database.transact(lambda conn: self._write(conn, lease, outcomes))
            except Unavailable as error:
                log.warning("commit.delayed", shard=lease.shard.id, reason=error.message)
                if self._stopping.is_set() and backoff > 1:
                    return None
                time.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)

    def _write(self, conn: Connection, lease: Lease, outcomes: list[Outcome]) -> CommitReceipt:
        receipt = leases.commit(conn, *lease.key, outcomes, self._lease_seconds)
        if receipt.held:
            response_cache.keep(conn, lease.shard.batch_id, outcomes)
        return receipt

    def _finalize(self, batch_id: str) -> None:
        """Close the job at once; the dispatcher does it where this fails, whatever the reason: this
        thread stores everybody's outcomes."""
        try:
            with self._database.begin() as conn:
                lifecycle.finalize(conn, batch_id)
        except Exception as error:
            log.warning("finalize.delayed", batch=batch_id, error=type(error).__name__)


def _portions(outcomes: list[Outcome]) -> Iterator[list[Outcome]]:
    """In order, each with a bounded size of details: most have none, some have megabytes."""
    portion: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        portion.append(outcome)
        size += len(outcome.detail or "")
        if size >= MAX_DETAILS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
