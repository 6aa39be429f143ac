"""What an outage costs: jobs with and without Redis, in turn, and a worker that is told to end."""

from __future__ import annotations

import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from benchmarks import timed_job
from benchmarks.service import post, repeated, wait
from benchmarks.stack import Stack, stack
from penstock.stack.child import Child
from penstock.stack.directory import DataDir
from penstock.stack.redis import EmbeddedRedis

ROUNDS = 2
GRACE = 20.0  #: seconds: the default of `worker.grace`


@dataclass(frozen=True, slots=True)
class Outages:
    """Rows a second of each job with and without Redis, and how a worker ended under load."""

    rows: int
    with_redis: tuple[float, ...]
    without_redis: tuple[float, ...]
    exit_s: float
    repeats: int

    @property
    def share(self) -> float:
        """Of the normal rate, with Redis dead for the whole job."""
        return statistics.median(self.without_redis) / statistics.median(self.with_redis)


def measure(rows: int) -> Outages:
    """On a stack of its own, whose Redis is ours to end."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with _redis() as redis:
        url, server = redis
        settings = {"PENSTOCK_BROKER__URL": url}
        with stack("fake", **settings) as up, httpx2.Client(base_url=up.url, timeout=120) as client:
            timed_job.run(up, client, 1_000)  # warm
            for _ in range(ROUNDS):
                for alive in (True, False):
                    _set(server, alive=alive)
                    rates[alive].append(timed_job.run(up, client, rows).rows_per_s)
            _set(server, alive=True)
            exit_s, repeats = _end_worker(up, client, rows)
    return Outages(rows, tuple(rates[True]), tuple(rates[False]), exit_s, repeats)


@contextlib.contextmanager
def _redis() -> Iterator[tuple[str, Child]]:
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as folder:
        directory = DataDir(Path(folder))
        redis = EmbeddedRedis(directory)
        server = Child(redis.spec(), directory.logs)
        try:
            _set(server, alive=True)
            yield redis.url, server
        finally:
            _set(server, alive=False)
            directory.release()


def _set(server: Child, *, alive: bool) -> None:
    if not alive:
        server.ask_to_stop(lambda: False)
    elif server.pid is None:
        server.spawn()
        while not server.spec.ready():
            time.sleep(0.05)
        time.sleep(3)  # consumers find it again


def _end_worker(up: Stack, client: httpx2.Client, rows: int) -> tuple[float, int]:
    """SIGTERM in the middle of a job: seconds until it has ended, and prompts that ran twice."""
    job = post(client, rows)
    while client.get(f"/batch-result/{job}").json()["progress"]["completed"] < rows // 4:
        time.sleep(0.05)
    worker = psutil.Process(up.pids["worker"])
    began = time.perf_counter()
    worker.send_signal(signal.SIGTERM)
    psutil.wait_procs([worker], timeout=3 * GRACE)
    exit_s = time.perf_counter() - began
    wait(client, job)
    return exit_s, repeated(up, job)
