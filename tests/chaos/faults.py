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
from sqlalchemy import text

from penstock.errors import Unavailable
from storage.database import Database
from tests.chaos.world import LEASE, World, slot
from workers.queues import queue_name

STALL = LEASE + 3  #: seconds that a process is stopped, so that it loses its leases
HANG = 30.0  #: seconds without a broker


@dataclass
class Kill:
    """A worker that was killed, and the shards that it had. `moved_at`: when the first of them had
    a new outcome, or ended."""

    at: float
    remaining: dict[int, int]
    moved_at: float | None = None


@dataclass
class Faults:
    """Does them, one at a time or several at once, and remembers what matters afterwards."""

    world: World
    database: Database
    draw: random.Random
    stopping: threading.Event
    kills: list[Kill] = field(default_factory=list)
    pauses: list[threading.Thread] = field(default_factory=list)

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
        }

    def kill_worker(self) -> bool:
        worker = self.draw.choice(self.world.workers)
        remaining = self.remaining("slot = :slot", slot=slot(worker))
        done = self.world.signal(worker, signal.SIGKILL)
        if done and remaining:
            self.kills.append(Kill(time.monotonic(), remaining))
        return done

    def watch_kills(self) -> None:
        """Ask for those that still wait for an outcome."""
        for kill in [kill for kill in self.kills if kill.moved_at is None]:
            now = self.remaining("id = ANY(:ids)", ids=list(kill.remaining))
            if any(now.get(id, 0) < before for id, before in kill.remaining.items()):
                kill.moved_at = time.monotonic()

    def remaining(self, where: str, **values: object) -> dict[int, int]:
        """Open prompts by shard that is leased or ready. Empty while the database is away."""
        statement = f"SELECT id, remaining FROM shards WHERE state <> 'done' AND {where}"
        with contextlib.suppress(Unavailable), self.database.begin() as conn:
            return {row.id: row.remaining for row in conn.execute(text(statement), values)}
        return {}

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
        name = "penstock:" + queue_name("fake", self.draw.choice(["bulk", "express"]))
        return self._redis(lambda client: client.lpush(name, *bodies))

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
