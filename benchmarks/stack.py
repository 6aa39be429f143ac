"""A stack of its own for one measurement: `penstock up` in a temporary directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

START_LIMIT = 120.0  # seconds


@dataclass(frozen=True)
class Stack:
    """Where it answers, and the pids of its processes by name."""

    url: str
    data_dir: Path

    @property
    def state(self) -> dict[str, Any]:
        """What the stack says of itself."""
        return dict(json.loads((self.data_dir / "stack.json").read_text()))

    @property
    def pids(self) -> dict[str, int]:
        return {name: int(pid) for name, pid in self.state["children"].items()}

    def pause(self) -> None:
        """None of its processes computes; for less than a lease, or shards are run again."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on. Idempotent."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids.values():
            os.kill(pid, number)

    def rss_mb(self, name: str) -> float:
        """Resident memory of one process, in MB."""
        resident: int = psutil.Process(self.pids[name]).memory_info().rss
        return round(resident / 1e6, 1)


@contextlib.contextmanager
def stack(model: str = "fake", **settings: str) -> Iterator[Stack]:
    """Up, and down again whatever happens, SIGTERM included."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        data_dir = Path(folder) / "data"
        command = [sys.executable, "-m", "penstock", "up", "--model", model, "--port", "0"]
        command += ["--flower-port", "0", "--data-dir", str(data_dir)]
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL
        )
        try:
            yield Stack(_wait_until_up(process, data_dir), data_dir)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=90)


def _wait_until_up(process: subprocess.Popen[bytes], data_dir: Path) -> str:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the stack ended with {process.returncode}")
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads((data_dir / "stack.json").read_text())["api_url"])
        time.sleep(0.1)
    raise SystemExit("the stack did not come up in time")
