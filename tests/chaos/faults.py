"""What is done to the stack, one function for each kind. Each returns at once or within a bounded
time, and undoes what would not heal by itself."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import TextClause, text

from penstock.errors import Unavailable
from storage.database import Database
from tests.chaos.world import LEASE, World, slot
from workers.app import make_app
from workers.queues import queue_name

STALL = LEASE + 3  #: seconds that a process is stopped, so that it loses its leases
HANG = 30.0  #: seconds without a broker

RUNNING = text("""
    SELECT r.batch_id, r.position FROM requests r JOIN shards s ON s.id = r.shard_id
    WHERE s.slot = :slot AND s.state = 'leased' AND r.state = 'running'
""")
OUTCOMES = text("""
    SELECT count(*) FILTER (WHERE coalesce(error_code, '') NOT IN ('cancelled', 'expired')),
           count(*)
    FROM results JOIN unnest(CAST(:batches AS text[]), CAST(:positions AS int[])) AS t(b, p)
      ON batch_id = t.b AND position = t.p
""")
BUSY = text("""
    SELECT stats ->> 'busy_share' FROM workers
    WHERE beat_at > clock_timestamp() - interval '3 seconds' AND stats ? 'busy_share'
""")


@dataclass
class Kill:
    """A worker that was killed, and the rows that ran in it: each is repeated at most once for it.

    `restarts`: its own slot comes back at once, else another has to take over. `moved_at`: when
    the first of these rows had a result."""

    worker: str
    at: float
    restarts: bool
    rows: list[tuple[str, int]]
    moved_at: float | None = None
    void: bool = False  #: all of them were cancelled, or expired


@dataclass
class Faults:
    """Does them, one at a time or several at once, and remembers what matters afterwards."""

    world: World
    database: Database
    draw: random.Random
    stopping: threading.Event
    kills: list[Kill] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  #: share of its time that an engine computed
    pauses: list[threading.Thread] = field(default_factory=list)
    looked_at: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def kinds(self) -> dict[str, Callable[[], bool]]:
        """By name. Each returns False where it found nothing to do it to."""
        return {
            "kill worker": self.kill_worker,
            "kill api": lambda: self.world.signal("api", signal.SIGKILL),
            "kill dispatcher": lambda: self.world.signal(self._dispatcher(), signal.SIGKILL),
            "kill redis": lambda: self.world.signal("redis", signal.SIGKILL),
            "kill postgres": lambda: self.world.signal("postgres", signal.SIGKILL),
            "postgres immediate": lambda: self.world.signal("postgres", signal.SIGQUIT),
            "stall worker": lambda: self._stop_for(self.draw.choice(self.world.workers), STALL),
            "stall dispatcher": lambda: self._stop_for(self._dispatcher(), STALL),
            "hang redis": lambda: self._stop_for("redis", HANG),
            "cut connections": self.cut_connections,
            "exhaust connections": self.exhaust_connections,
            "flushall": lambda: self._redis(lambda client: client.flushall()),
            "kill clients": self.kill_clients,
            "garbage": self.garbage,
            "restart worker": lambda: self.world.signal(
                self.draw.choice(self.world.workers), signal.SIGTERM
            ),
            "restart api": lambda: self.world.signal("api", signal.SIGTERM),
            "restart dispatcher": lambda: self.world.signal(self._dispatcher(), signal.SIGTERM),
            "order by broker": self.order,
        }

    def kill_worker(self) -> bool:
        worker = self.draw.choice(self.world.workers)
        pid = self.world.pid(worker)
        if pid is None or not self.world.signal(worker, signal.SIGKILL):
            return False
        at = time.monotonic()
        while self.world.pid(worker) == pid and time.monotonic() < at + 1:
            time.sleep(0.01)
        if rows := self._ask(RUNNING, slot=slot(worker)):
            self.kills.append(Kill(worker, at, self.world.restarts(worker), rows))
        return True

    def watch(self) -> None:
        """Look at the kills that still wait for a result, and at the engines."""
        for kill in [kill for kill in self.kills if kill.moved_at is None and not kill.void]:
            batches, positions = map(list, zip(*kill.rows, strict=True))
            for results, ended in self._ask(OUTCOMES, batches=batches, positions=positions):
                kill.moved_at = time.monotonic() if results else None
                kill.void = not results and ended == len(kill.rows)
        if (now := time.monotonic()) >= self.looked_at + 1:
            self.looked_at = now
            self.busy += [float(share) for (share,) in self._ask(BUSY)]

    def _ask(self, statement: TextClause, **values: object) -> list[Any]:
        """Rows; none while the database is away."""
        with contextlib.suppress(Unavailable), self.database.begin() as conn:
            return [tuple(row) for row in conn.execute(statement, values)]
        return []

    def cut_connections(self) -> bool:
        """Every second for some seconds, all connections but our own."""
        return self._in_background(self._cut, seconds=self.draw.uniform(2, 6))

    def exhaust_connections(self) -> bool:
        return self._in_background(self._exhaust, seconds=self.draw.uniform(2, 6))

    def kill_clients(self) -> bool:
        return self._redis(lambda client: client.client_kill_filter(_type="normal"))

    def garbage(self) -> bool:
        """What a worker must not understand, in its queues."""
        bodies = [
            b"\xff\xfe garbage",
            b"{",
            pickle.dumps({"task": "os.system", "args": ["false"]}),
            json.dumps({"body": "e30=", "headers": {"task": "no.such.task", "id": "1"}}).encode(),
            json.dumps(_envelope({"shard": "; DROP TABLE results", "lane": "bulk"})).encode(),
            json.dumps(_envelope({"shard": -5, "lane": "nowhere"})).encode(),
        ]
        name = "penstock:" + queue_name(self.world.model, self.draw.choice(["bulk", "express"]))
        return self._redis(lambda client: client.lpush(name, *bodies))

    def order(self) -> bool:
        """What Celery obeys by default, and a worker of ours must not."""
        command = self.draw.choice(["shutdown", "pool_shrink", "cancel_consumer", "disable_events"])
        queue = queue_name(self.world.model, "bulk")
        arguments = {"cancel_consumer": {"queue": queue}, "pool_shrink": {"n": 100}}
        broker = make_app(str(self.world.state["broker_url"]), "penstock:")

        def send(until: float) -> None:
            with contextlib.suppress(Exception):  # whatever the client of a broken broker raises
                broker.control.broadcast(command, arguments=arguments.get(command, {}))

        return self._in_background(send, seconds=0)

    def heal(self) -> None:
        """Wait for what still goes on, so that nothing stays stopped."""
        for thread in self.pauses:
            thread.join(timeout=HANG + 10)

    def _dispatcher(self) -> str:
        return self.draw.choice(["dispatcher", "standby"])

    def _stop_for(self, name: str, seconds: float) -> bool:
        pid = self.world.pid(name)
        if pid is None or not self.world.signal(name, signal.SIGSTOP):
            return False

        def wake() -> None:
            self.stopping.wait(seconds)
            if self.world.pid(name) == pid:
                self.world.signal(name, signal.SIGCONT)

        return self._start(wake)

    def _in_background(self, action: Callable[[float], None], *, seconds: float) -> bool:
        return self._start(lambda: action(time.monotonic() + seconds))

    def _start(self, action: Callable[[], None]) -> bool:
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        self.pauses.append(thread)
        return True

    def _cut(self, until: float) -> None:
        statement = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND application_name <> 'chaos'"
            " AND backend_type = 'client backend'"
        )
        while time.monotonic() < until and not self.stopping.is_set():
            with contextlib.suppress(Unavailable), self.database.begin() as conn:
                conn.execute(statement)
            self.stopping.wait(1)

    def _exhaust(self, until: float) -> None:
        url = str(self.world.state["database_url"])
        taken: list[Any] = []
        with contextlib.suppress(psycopg2.Error):
            while len(taken) < 200:
                taken.append(psycopg2.connect(url, application_name="chaos", connect_timeout=2))
        self.stopping.wait(max(0.0, until - time.monotonic()))
        for connection in taken:
            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def _redis(self, action: Callable[[redis.Redis], object]) -> bool:
        path = str(self.world.state["broker_url"]).removeprefix("redis+socket://")
        client = redis.Redis(unix_socket_path=path, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        try:
            action(client)
        except redis.RedisError:
            return False
        finally:
            client.close()
        return True


def _envelope(kwargs: dict[str, object]) -> dict[str, object]:
    """A message as Celery sends it, with arguments that it would not."""
    return {
        "body": json.dumps([[], kwargs, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "penstock.generate", "id": "forged", "lang": "py"},
        "properties": {
            "delivery_tag": "forged",
            "delivery_info": {"exchange": "", "routing_key": "x"},
            "body_encoding": "utf-8",
        },
    }
