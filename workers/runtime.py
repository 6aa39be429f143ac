"""The life of a GPU worker: load, register, work, drain. A composition root.

Order matters. The model is loaded before anything is claimed; the engine, committer, heartbeat and
poll run before Celery connects, since they need no broker; after SIGTERM claiming stops first, and
leases are released last.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from celery import Celery, signals
from celery.platforms import SecurityWarning

from batching.engine import Engine
from models.runner import Runner
from penstock import __version__, telemetry
from penstock.errors import StackError, Unavailable
from penstock.ids import new_id
from penstock.settings import Settings
from storage import fleet
from storage import leases as sql
from storage.database import Database
from storage.states import Lane
from workers import generate, ordered
from workers.app import make_app
from workers.committer import Committer
from workers.control import answer_questions_alone
from workers.heartbeat import Heartbeat, HeartbeatTiming
from workers.lanes import LaneShares, LaneSizes
from workers.lease import Leases
from workers.loading import engine_config
from workers.ordered import OrderWatch
from workers.poller import Poller
from workers.provenance import Provenance, hashes_of, versions
from workers.publisher import Publisher
from workers.queues import LANES, WakeUps, make_queue
from workers.reuse import ReuseRules
from workers.shards import ShardRunner, WorkerIdentity
from workers.usage import Usage
from workers.watchdog import Watchdog

log = telemetry.get_logger(__name__)

#: Seconds that Celery gets to end after the drain, and that stopping waits for the last release.
LAST_WAIT: Final = 5.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM; blocks."""
    telemetry.configure(settings.log.level, settings.log.format)
    if settings.database.url is None or settings.broker.url is None:
        raise StackError("A worker needs PENSTOCK_DATABASE__URL and PENSTOCK_BROKER__URL.")
    database = Database(
        settings.database.url.get_secret_value(),
        pool_size=settings.database.pool_size,
        statement_timeout=settings.database.statement_timeout,
        connect_timeout=settings.database.connect_timeout,
        application_name="penstock-worker",
    )
    choices = settings.model.models if settings.model.choices else {}
    settings, runner = ordered.load(settings, database)
    worker = GpuWorker(settings, runner, database, choices=sorted(choices))
    try:
        worker.start()
        worker.consume()
    finally:
        worker.stop()
        database.close()
    if worker.exit_status:
        raise SystemExit(worker.exit_status)
    if not worker.leaving:
        raise StackError("Celery's consumer ended by itself; its reason is in the log.")


class GpuWorker:
    """One engine and what surrounds it."""

    def __init__(
        self,
        settings: Settings,
        runner: Runner,
        database: Database,
        *,
        choices: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._choices = choices  # what it may be ordered to serve
        self._database = database
        model, timing = settings.model, settings.worker
        self._info = runner.info
        self._identity = WorkerIdentity(
            slot=timing.slot,
            boot_id=new_id("boot"),
            model=model.public_name,
            lease_seconds=timing.lease,
        )
        config = engine_config(model, self._info)
        self._sizes = LaneSizes(config.max_rows, config.express_rows)
        self._shares = LaneShares(self._sizes)
        self._held = Leases()
        self._shards = ShardRunner(
            database=database,
            codec=runner.codec,
            info=self._info,
            identity=self._identity,
            held=self._held,
            sizes=self._sizes,
            reuse=ReuseRules(
                enabled=settings.cache.enabled,
                ttl=settings.cache.ttl,
                shared=settings.cache.shared,
            ),
        )
        self._config = config
        self.engine = Engine(runner, config, on_admit=self._shards.on_admit)
        self._committer = Committer(
            database,
            lease_seconds=timing.lease,
            on_lost=self._shards.lose,
            on_settled=self._shards.reuse.settled,
        )
        self._shards.attach(self.engine, self._committer)
        broker = settings.broker
        assert broker.url is not None  # noqa: S101  checked by `run`
        self._publisher = Publisher(broker.url.get_secret_value(), broker.key_prefix)
        self._shards.publish = self._publisher.of
        self._usage = Usage(self._info.device)
        self._provenance = Provenance(
            database,
            self._identity.slot,
            self._identity.boot_id,
            hashes_of(model.name, self._info.revision),
        )
        self._heartbeat = Heartbeat(
            database=database,
            identity=self._identity,
            held=self._held,
            runner=self._shards,
            timing=HeartbeatTiming(timing.heartbeat, timing.self_fence),
            stats=self.stats,
            on_replaced=self._replaced,
        )
        self._poller = Poller(self._shards, self._shares, timing.poll, wake=self._wake)
        self._watchdog = Watchdog(
            engine=self.engine,
            limit=timing.watchdog,
            threads=[
                self._committer.alive,
                self._shards.admissions.alive,
                self._heartbeat.alive,
                self._poller.alive,
                self._publisher.alive,
            ],
            fence=self._heartbeat.fence_if_hung,
        )
        self._orders = OrderWatch(
            database, timing.slot, model.public_name, lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
        self._drain_lock = threading.Lock()
        self._drained = False
        self._consumer_over = threading.Event()
        self.leaving = False  #: it was asked to end
        self._stop_lock = threading.Lock()
        self._stopped = False
        self._wake_ups: WakeUps | None = None

    def start(self) -> None:
        """Claims begin here, broker or not."""
        # Celery installs its own handlers, but only once it has reached the broker.
        signal.signal(signal.SIGTERM, self._on_shutdown)
        signal.signal(signal.SIGINT, self._on_shutdown)
        self.engine.start()
        self._committer.start()
        self._shards.admissions.start()
        self._publisher.start()
        self._register()
        self._usage.start()
        self._provenance.start()
        self._heartbeat.start()
        self._poller.start()
        self._watchdog.start()
        if self._choices:
            self._orders.start()

    def consume(self) -> None:
        """Take wake-ups from the broker until SIGTERM."""
        broker = self._settings.broker
        assert broker.url is not None  # noqa: S101  checked by `run`
        url = broker.url.get_secret_value()
        queues = [make_queue(self._identity.model, lane) for lane in LANES]
        app = make_app(url, broker.key_prefix, queues)
        self._wake_ups = WakeUps(url, broker.key_prefix)
        generate.register(app, self._shards, self._shares, self._wake_ups, self._identity.model)
        # A receiver makes Celery leave logging to us.
        signals.setup_logging.connect(_keep_logging, weak=False)
        signals.worker_ready.connect(_consumer_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_shutdown, weak=False)
        consumer = _celery_worker(app, self._identity.slot, self._sizes.threads)
        try:
            consumer.start()
        finally:
            self._consumer_over.set()

    def stop(self) -> None:
        """Store what is there, release the rest, end every thread. Idempotent."""
        with self._stop_lock:
            if self._stopped:
                return
            self._stopped = True
            self._drain()
            self._orders.stop()
            self._watchdog.stop()
            self._poller.stop()
            self._heartbeat.stop()
            self._usage.stop(timeout=0)  # it may wait for a driver
            self._provenance.stop()
            self.engine.stop()
            self._shards.admissions.stop()
            self._committer.stop(timeout=2 * LAST_WAIT)
            self._await_releases()
            self._publisher.stop()
            if self._wake_ups is not None:
                self._wake_ups.close()
            log.info("worker.stopped", slot=self._identity.slot)

    @property
    def exit_status(self) -> int:
        """Not 0: it ends to be started again."""
        return ordered.EXIT_FOR_ORDER if self._orders.seen.is_set() else 0

    def stats(self) -> Mapping[str, object]:
        """What `/stats` and `/metrics` show of this worker."""
        engine, reuse = self.engine.stats(), self._shards.reuse.stats()
        return {
            **asdict(engine),
            **reuse,
            **self._shards.stats(),
            **self._usage.stats(),
            "leases": len(self._held.all()),
            # Counts begin anew with a boot: whoever takes their difference has to know.
            "boot": self._identity.boot_id,
            "prefix_tokens": engine.tokens_cached,
            "saved_rows": reuse["cache_hits"],
        }

    def _register(self) -> None:
        """Free the leases of this slot's earlier lives, and say who is here. Waits for the
        database."""
        who = self._identity
        info = {
            **asdict(self._info),
            "name": who.model,  # never a path of this machine
            "version": __version__,
            "versions": versions(),
            "choices": list(self._choices),
            "holds": {"bulk": self._sizes.fill, "express": self._sizes.express},
            # What the engine goes by, which may be less than the runner could do.
            "max_rows": self._config.max_rows,
            "express_rows": self._config.express_rows,
            "step_tokens": self._config.step_tokens,
            "min_prefix": self._config.min_prefix,
        }
        backoff = 0.5
        while True:
            try:
                with self._database.begin() as conn:
                    fleet.register(conn, who.slot, who.boot_id, who.model, info)
                    freed = sql.release_slot(conn, who.slot, who.boot_id)
                log.info("worker.registered", slot=who.slot, model=who.model, freed=freed)
                return
            except Unavailable as error:
                log.warning("worker.waiting", reason=error.message)
                time.sleep(backoff)
                backoff = min(backoff * 2, 10)

    def _on_shutdown(self, *_: object, **__: object) -> None:
        """Runs in a signal handler, so it only starts a thread; once."""
        if self.leaving:
            return
        self.leaving = True
        threading.Thread(target=self._leave, name="leave", daemon=True).start()

    def _leave(self) -> None:
        """Drain, then end the process where Celery does not: it may be waiting for a broker."""
        self._drain()
        if not self._consumer_over.wait(LAST_WAIT):
            self.stop()
            os._exit(self.exit_status)

    def _wake(self) -> None:
        """Ask for one more claim of bulk, by the broker, so that Flower shows it."""
        if self._wake_ups is not None:
            self._wake_ups.send(self._identity.model, Lane.BULK.value)

    def _drain(self) -> None:
        """Stop claiming, finish what runs within the grace period, give back the rest. Whoever
        comes second waits for the first."""
        with self._drain_lock:
            if not self._drained:
                self._drain_once()
                self._drained = True

    def _drain_once(self) -> None:
        log.info("worker.draining", leases=len(self._held.all()))
        self._shards.drain()
        self.engine.drain()
        deadline = time.monotonic() + self._settings.worker.grace
        for lease in self._held.all():
            lease.wait(max(0.0, deadline - time.monotonic()))
        for lease in self._held.all():
            self._shards.abort(lease.open_ids())

    def _await_releases(self) -> None:
        """The threads that ran the shards release them; they are not ours to join."""
        deadline = time.monotonic() + LAST_WAIT
        while self._held.all() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _replaced(self) -> None:
        """Another process registered under this slot: leave at once, it has our leases."""
        os._exit(75)


def _keep_logging(**_: object) -> None:
    """`telemetry.configure` has done it."""


def _consumer_ready(**_: object) -> None:
    log.info("consumer.ready")


def _celery_worker(app: Celery, slot: str, threads: int) -> Any:
    # As root Celery warns of what pickle could do; messages here are JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    answer_questions_alone()
    # Celery reads it once: its other shutdowns are not implemented on threads.
    os.environ.pop("REMAP_SIGTERM", None)
    return app.Worker(
        hostname=f"{slot}@penstock",
        pool="threads",
        concurrency=threads,
        loglevel=None,
        purge=True,  # a broken message would otherwise be restored and end every next worker
        without_gossip=True,  # both are the known triggers of hangs after a Redis restart
        without_mingle=True,
        quiet=True,
    )
