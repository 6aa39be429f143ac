"""The clock of the queue: one active process under an advisory lock, level-triggered.

It looks at the state every second and does what the state asks for, so that nothing that was missed
stays missed. A composition root; knows no torch.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from penstock import telemetry
from penstock.errors import StackError, Unavailable
from penstock.settings import Settings
from storage import (
    client_cache,
    due,
    fleet,
    forgetting,
    leases,
    lifecycle,
    reading,
    response_cache,
    retention,
    turns,
)
from storage.database import Database
from storage.forgetting import TimeToLive
from storage.records import WorkerRecord
from storage.states import Lane
from storage.tables import SHARD_SIZE
from workers.addresses import Policy, parse_networks
from workers.egress import Egress
from workers.exports import ScheduledExports, scheduled_exports
from workers.queues import WakeUps
from workers.webhooks import Sender

log = telemetry.get_logger(__name__)

LOCK_KEY: Final = 0x50454E53  # "PENS"
#: Wake-ups outstanding for each claim that the live workers have room for.
WAKE_UPS_PER_CLAIM: Final = 2
#: Requests of one claim.
CLAIM_ROWS: Final = {Lane.BULK: SHARD_SIZE, Lane.EXPRESS: 1}
#: So many ticks without the database are an outage, and not a slow tick.
GAP_TICKS: Final = 5
RETENTION_INTERVAL: Final = 60.0  # seconds
#: Of a tick's interval, for work that comes in portions: the rest must not wait for it long.
CLOSING_SHARE: Final = 1.0
RETENTION_SHARE: Final = 0.25
SENDER_CONNECTIONS: Final = 4
MAX_BACKOFF: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class DispatcherTiming:
    """All in seconds."""

    interval: float
    reap_interval: float
    retention: float
    lease: float
    #: Longer without the database than this, and workers may have been, too.
    gap: float
    answers: response_cache.Bounds = field(default_factory=response_cache.Bounds)
    #: Of conversations; None: they go with their jobs.
    ttl: TimeToLive | None = None


def run(settings: Settings) -> None:
    """Dispatch until SIGTERM or SIGINT; blocks."""
    telemetry.configure(settings.log.level, settings.log.format)
    if settings.database.url is None or settings.broker.url is None:
        raise StackError("The dispatcher needs PENSTOCK_DATABASE__URL and PENSTOCK_BROKER__URL.")
    database = _database(settings, 2)
    # Its own connections: however many receivers there are, a tick waits for none of them.
    senders_database = _database(settings, SENDER_CONNECTIONS)
    sender = _sender(settings, senders_database)
    wake_ups = WakeUps(settings.broker.url.get_secret_value(), settings.broker.key_prefix)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    timing = DispatcherTiming(
        interval=settings.dispatcher.interval,
        reap_interval=settings.dispatcher.reap_interval,
        retention=settings.dispatcher.retention,
        lease=settings.worker.lease,
        gap=max(settings.worker.heartbeat, GAP_TICKS * settings.dispatcher.interval),
        answers=response_cache.Bounds(settings.cache.ttl, settings.cache.entries),
        ttl=_time_to_live(settings),
    )
    sender.start()
    exports = scheduled_exports(settings.conversations, database)
    try:
        Dispatcher(database, wake_ups, timing, exports).run(stopping)
    finally:
        sender.stop()
        if exports is not None:
            exports.stop()
        wake_ups.close()
        database.close()
        senders_database.close()


def _database(settings: Settings, connections: int) -> Database:
    assert settings.database.url is not None  # noqa: S101  # looked at by the caller
    return Database(
        settings.database.url.get_secret_value(),
        pool_size=connections,
        statement_timeout=settings.database.statement_timeout,
        connect_timeout=settings.database.connect_timeout,
        application_name="penstock-dispatcher",
    )


def _sender(settings: Settings, database: Database) -> Sender:
    webhooks = settings.webhooks
    policy = Policy(parse_networks(webhooks.allowed_networks))
    return Sender(
        database,
        Egress(policy, timeout=webhooks.timeout),
        concurrency=webhooks.concurrency,
        retention=webhooks.retention,
    )


def _time_to_live(settings: Settings) -> TimeToLive:
    kept = settings.dispatcher.retention
    return TimeToLive(
        others=min(settings.conversations.ttl or kept, kept),
        owners={name: min(ttl, kept) for name, ttl in settings.conversations.owner_ttl.items()},
    )


class Dispatcher:
    """Waits for the lock, then ticks for as long as it has it."""

    def __init__(
        self,
        database: Database,
        wake_ups: WakeUps,
        timing: DispatcherTiming,
        exports: ScheduledExports | None = None,
    ) -> None:
        self._exports = exports
        self._database = database
        self._wake_ups = wake_ups
        self._timing = timing
        self._last_contact: float | None = None
        self._last_run: dict[str, float] = {}

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping`; a database that is away is waited for."""
        lock = self._database.advisory_lock(LOCK_KEY)
        backoff = self._timing.interval
        standby = False
        while not stopping.is_set():
            try:
                if lock.alive() or lock.try_acquire():
                    if standby or self._last_contact is None:
                        log.info("dispatcher.active")
                    standby = False
                    self.tick()
                    backoff = self._timing.interval
                elif not standby:
                    standby = True
                    log.info("dispatcher.standing_by")
            except Unavailable as error:
                log.warning("tick.failed", reason=error.message)
                backoff = min(backoff * 2, MAX_BACKOFF)
            stopping.wait(backoff)
        lock.release()

    def tick(self) -> None:
        """Everything that is due. Each part is a transaction of its own, so that one that fails
        undoes no other."""
        self._grace_after_gap()
        self._due("reap", self._timing.reap_interval, self._reap)
        with self._database.begin() as conn:
            found = due.look(conn)
        if found.expiry:
            self._in_transaction(lifecycle.expire_due)
        if found.expiry or found.ending:
            self._end()
        if found.turns:
            self._in_transaction(turns.settle)
        self._due("retention", RETENTION_INTERVAL, self._retain)
        self._due("caches", RETENTION_INTERVAL, self._clear_caches)
        self._due("conversations", RETENTION_INTERVAL, self._forget)
        if self._exports is not None:
            self._exports.tend()
        if found.claims:
            self._wake()
        self._last_contact = time.monotonic()

    def _end(self) -> None:
        """Close what is open of jobs that are ending, and end those that have nothing open."""
        self._repeat(lifecycle.close_open, CLOSING_SHARE)
        with self._database.begin() as conn:
            for batch_id in lifecycle.finalize(conn):
                log.info("batch.finalized", batch=batch_id)

    def _grace_after_gap(self) -> None:
        """Workers that could not reach the database either get one more lease period."""
        now = time.monotonic()
        if self._last_contact is not None and now - self._last_contact > self._timing.gap:
            with self._database.begin() as conn:
                extended = leases.extend_all(conn, self._timing.lease)
            log.warning("leases.extended", gap=round(now - self._last_contact, 1), leases=extended)

    def _reap(self) -> None:
        with self._database.begin() as conn:
            if reaped := leases.reap(conn):
                log.warning("leases.reaped", shards=reaped)

    def _retain(self) -> None:
        """A few portions, and at the next tick a few more, until nothing old is left."""
        if self._repeat(self._delete_old, RETENTION_SHARE):
            self._last_run.pop("retention")

    def _delete_old(self, conn: Connection) -> int:
        deleted = retention.delete_old(conn, self._timing.retention)
        if deleted:
            log.info("batches.deleting", shards_and_batches=deleted)
        return deleted

    def _clear_caches(self) -> None:
        """The same of answers that are too old to be reused, and of clients' keys."""
        old = [self._repeat(client_cache.delete_expired, RETENTION_SHARE)]
        old.append(
            self._repeat(
                lambda conn: response_cache.delete_old(conn, self._timing.answers), RETENTION_SHARE
            )
        )
        if any(old):
            self._last_run.pop("caches")

    def _forget(self) -> None:
        """The same of conversations that were silent too long."""
        if self._repeat(self._delete_silent, RETENTION_SHARE):
            self._last_run.pop("conversations")

    def _delete_silent(self, conn: Connection) -> int:
        ttl = self._timing.ttl or TimeToLive(self._timing.retention)
        deleted = forgetting.delete_silent(conn, ttl)
        if deleted:
            log.info("conversations.deleted", conversations_and_turns=deleted)
        return deleted

    def _wake(self) -> None:
        """Send wake-ups for ready shards, never more than twice the claims there is room for: a
        worker that holds enough asks for more by itself."""
        with self._database.begin() as conn:
            workers = fleet.workers(conn)
            leased = reading.leased_rows(conn)
            lanes = reading.ready_lanes(conn, limit=_most_wake_ups(workers))
        for model, lane, ready in lanes:
            free = _rows(workers, model, lane) - leased.get((model, lane), 0)
            for _ in range(min(ready, self._room(free, model, lane) if free > 0 else 0)):
                self._wake_ups.send(model, lane.value)

    def _room(self, free: int, model: str, lane: Lane) -> int:
        """Wake-ups to send for so many free rows, beside those that nobody took yet."""
        most = WAKE_UPS_PER_CLAIM * math.ceil(free / CLAIM_ROWS[lane])
        try:
            return most - self._wake_ups.depth(model, lane.value)
        except Exception as error:  # whatever the broker's client raises; workers poll meanwhile
            log.warning("broker.away", error=type(error).__name__)
            return 0

    def _due(self, name: str, interval: float, action: Callable[[], None]) -> None:
        now = time.monotonic()
        if now - self._last_run.get(name, float("-inf")) >= interval:
            self._last_run[name] = now
            action()

    def _in_transaction(self, action: Callable[[Connection], int]) -> int:
        with self._database.begin() as conn:
            return action(conn)

    def _repeat(self, action: Callable[[Connection], int], share: float) -> bool:
        """A bounded statement, once or again and again while it finds work, for a share of the
        interval. True: there may be more."""
        deadline = time.monotonic() + share * self._timing.interval
        while self._in_transaction(action):
            if time.monotonic() >= deadline:
                return True
        return False


def _rows(workers: list[WorkerRecord], model: str | None, lane: Lane) -> int:
    """What the workers of a model, or all, hold at most."""
    found = (worker.info.get("holds") for worker in workers if model in (None, worker.model))
    return sum(rows[lane.value] for rows in found if isinstance(rows, dict))


def _most_wake_ups(workers: list[WorkerRecord]) -> int:
    """Ready shards worth counting: more could not be woken for anyway."""
    return max(
        WAKE_UPS_PER_CLAIM * math.ceil(_rows(workers, None, lane) / CLAIM_ROWS[lane])
        for lane in Lane
    )
