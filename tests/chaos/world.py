"""The stack under test: `penstock up` on real PostgreSQL and Redis, with more workers and a second
dispatcher beside it, all of which the harness may kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from storage.database import Database

ROOT = Path(__file__).parents[2]
LEASE = 8.0  #: seconds
ROWS, EXPRESS_ROWS = 64, 4
SETTINGS = {
    "PENSTOCK_MODEL__NAME": "fake",
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
}
START_LIMIT, END_LIMIT = 120.0, 60.0  #: seconds


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

    data_dir: Path
    up: subprocess.Popen[bytes]
    extras: list[Extra] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> dict[str, object]:
        return dict(json.loads((self.data_dir / "stack.json").read_text()))

    def pid(self, name: str) -> int | None:
        """Of a process that runs now."""
        for extra in self.extras:
            if extra.name == name:
                running = extra.process is not None and extra.process.poll() is None
                return extra.process.pid if extra.process is not None and running else None
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = dict(self.state["children"]).get(name)  # type: ignore[call-overload]
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

    def slot(self, worker: str) -> str:
        """The name under which a worker registers."""
        return f"chaos-{worker}"

    @property
    def workers(self) -> list[str]:
        return ["worker", *(extra.name for extra in self.extras if extra.command == "worker")]

    def logs(self) -> Iterator[str]:
        for path in (*(self.data_dir / "logs").glob("*.log*"), *(e.log for e in self.extras)):
            if path.is_file():
                yield path.read_text(errors="replace")

    def tend(self) -> None:
        while not self._stopping.wait(0.2):
            for extra in self.extras:
                extra.tend()

    def stop(self) -> list[str]:
        """End everything; returns what would not end by itself."""
        self._stopping.set()
        stubborn = []
        processes = [(e.name, e.process) for e in self.extras if e.process is not None]
        for _, process in (*processes, ("up", self.up)):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for name, process in (*processes, ("up", self.up)):
            try:
                process.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                stubborn.append(name)
                process.kill()
                process.wait()
        return stubborn


@contextlib.contextmanager
def world(folder: Path, *, workers: int, settings: dict[str, str]) -> Iterator[World]:
    """Up, and down again whatever happens. The last worker's log goes to a full disk."""
    data_dir = folder / "data"
    environment = {**SETTINGS, **settings}
    command = [sys.executable, "-m", "penstock", "up", "--port", "0", "--flower-port", "0"]
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            cwd=ROOT,
            env={**os.environ, **environment, "PENSTOCK_WORKER__SLOT": "chaos-worker"},
            stdout=log,
            stderr=log,
        )
    made = World(data_dir, up)
    try:
        _await_up(made)
        urls = {
            "PENSTOCK_DATABASE__URL": str(made.state["database_url"]),
            "PENSTOCK_BROKER__URL": str(made.state["broker_url"]),
        }
        names = [f"worker{number}" for number in range(2, workers + 1)]
        for name in names:
            slot = {"PENSTOCK_WORKER__SLOT": made.slot(name)}
            log_file = Path("/dev/full") if name == names[-1] else folder / f"{name}.log"
            pause = 0.5 if name == names[0] else LEASE + 4  # others have to take over
            made.extras.append(
                Extra(name, "worker", pause, {**environment, **urls, **slot}, log_file)
            )
        second = {**environment, **urls}
        made.extras.append(Extra("standby", "dispatch", 2.0, second, folder / "standby.log"))
        threading.Thread(target=made.tend, name="tend", daemon=True).start()
        yield made
    finally:
        made.stop()


def _await_up(made: World) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if made.up.poll() is not None:
            raise RuntimeError(f"the stack ended with {made.up.returncode}")
        with contextlib.suppress(OSError, ValueError, KeyError):
            if made.state["api_url"]:
                return
        time.sleep(0.1)
    raise TimeoutError("the stack did not come up in time")


def database(made: World) -> Database:
    """The harness's own connections."""
    return Database(str(made.state["database_url"]), pool_size=4, application_name="chaos")
