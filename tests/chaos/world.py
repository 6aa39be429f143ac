"""The stack under test: `penstock up` on real PostgreSQL and Redis, with more workers and a second
dispatcher beside it, all of which the harness may kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stack import Stack, stack
from storage.database import Database

ROOT = Path(__file__).parents[2]
LEASE = 8.0  #: seconds
ROWS, EXPRESS_ROWS = 64, 4
#: By the name that the command knows: what to load, and what the API calls it.
MODELS = {"fake": ("fake", "fake"), "tiny": ("assets/penstock-tiny", "penstock-tiny")}
SETTINGS = {
    "PENSTOCK_MODEL__THREADS": "1",
    "PENSTOCK_MODEL__MAX_ROWS": str(ROWS),
    "PENSTOCK_MODEL__EXPRESS_ROWS": str(EXPRESS_ROWS),
    "PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "50",
    "PENSTOCK_MODEL__FAKE_DANGEROUS": "true",
    "PENSTOCK_WORKER__LEASE": str(LEASE),
    "PENSTOCK_WORKER__HEARTBEAT": "1.5",
    "PENSTOCK_WORKER__SELF_FENCE": "6",
    "PENSTOCK_WORKER__POLL": "1",
    "PENSTOCK_WORKER__GRACE": "5",
    "PENSTOCK_DISPATCHER__REAP_INTERVAL": "1",
    "PENSTOCK_API__CHAT_TIMEOUT": "20",
    "PENSTOCK_WEBHOOKS__ALLOWED_NETWORKS": "127.0.0.0/8",
    "PENSTOCK_WEBHOOKS__TIMEOUT": "3",
}
END_LIMIT = 60.0  #: seconds


@dataclass
class Extra:
    """A process beside the stack, started again `pause` seconds after each of its ends."""

    name: str
    command: str
    pause: float
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    ended_at: float | None = None

    def tend(self) -> None:
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None and self.ended_at is None:
            self.ended_at = now
        if self.ended_at is None or now - self.ended_at >= self.pause:
            self.ended_at = None
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "penstock", self.command],
                    cwd=ROOT,
                    env={**os.environ, **self.environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )


@dataclass
class World:
    """Processes by name; a name stays the same over restarts."""

    up: Stack
    model: str  #: its public name
    extras: list[Extra] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> dict[str, Any]:
        """What the stack says of itself."""
        return self.up.state

    def pid(self, name: str) -> int | None:
        """Of a process that runs now."""
        for extra in self.extras:
            if extra.name == name:
                running = extra.process is not None and extra.process.poll() is None
                return extra.process.pid if extra.process is not None and running else None
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = self.up.pids.get(name)
            return pid if pid is not None and psutil.pid_exists(pid) else None
        return None

    def signal(self, name: str, number: signal.Signals) -> bool:
        """False: it does not run."""
        pid = self.pid(name)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def restarts(self, worker: str) -> bool:
        """Whether its slot is back before its leases run out."""
        return all(extra.pause < LEASE for extra in self.extras if extra.name == worker)

    @property
    def workers(self) -> list[str]:
        return ["worker", *(extra.name for extra in self.extras if extra.command == "worker")]

    def logs(self) -> Iterator[str]:
        for path in (*(self.up.data_dir / "logs").glob("*.log*"), *(e.log for e in self.extras)):
            if path.is_file():
                yield path.read_text(errors="replace")

    def tend(self) -> None:
        while not self._stopping.wait(0.2):
            for extra in self.extras:
                extra.tend()

    def stop(self) -> list[str]:
        """End what runs beside the stack; returns what would not end by itself. Idempotent."""
        self._stopping.set()
        stubborn = []
        processes = [(e.name, e.process) for e in self.extras if e.process is not None]
        for _, process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for name, process in processes:
            try:
                process.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                stubborn.append(name)
                process.kill()
                process.wait()
        return stubborn


def slot(worker: str) -> str:
    """The name under which a worker registers."""
    return f"chaos-{worker}"


@contextlib.contextmanager
def world(folder: Path, *, workers: int, model: str) -> Iterator[World]:
    """Up, and down again whatever happens. The last worker's log goes to a full disk."""
    name, public = MODELS[model]
    path = str(ROOT / name) if name != public else name
    with stack(path, **SETTINGS, PENSTOCK_WORKER__SLOT=slot("worker")) as up:
        made = World(up, public)
        environment = {
            **SETTINGS,
            "PENSTOCK_MODEL__NAME": path,
            "PENSTOCK_DATABASE__URL": str(up.state["database_url"]),
            "PENSTOCK_BROKER__URL": str(up.state["broker_url"]),
        }
        names = [f"worker{number}" for number in range(2, workers + 1)]
        for name in names:
            own = {**environment, "PENSTOCK_WORKER__SLOT": slot(name)}
            log = Path("/dev/full") if name == names[-1] else folder / f"{name}.log"
            pause = 0.5 if name == names[0] else LEASE + 4  # others have to take over
            made.extras.append(Extra(name, "worker", pause, own, log))
        standby = Extra("standby", "dispatch", 2.0, environment, folder / "standby.log")
        made.extras.append(standby)
        tending = threading.Thread(target=made.tend, name="tend", daemon=True)
        tending.start()
        try:
            yield made
        finally:
            made.stop()
            tending.join()


def database(made: World) -> Database:
    """The harness's own connections."""
    return Database(str(made.state["database_url"]), pool_size=4, application_name="chaos")
