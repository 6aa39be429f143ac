"""One supervised process: how it is started, asked to stop, and made to end with its parent.

Knows nothing of what the process does or of the other ones.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Final

from penstock.stack.account import Account

LOG_LIMIT_BYTES = 10_000_000
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _nothing() -> None:
    return None


def _at_once() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one process. Times in seconds."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  #: the whole of it
    ready: Callable[[], bool] = _at_once  #: quick, raises nothing
    prepare: Callable[[], None] = _nothing  #: before each start
    start_limit: float = 60
    #: The children after it start only when it is ready.
    barrier: bool = True
    #: Runs to its end once, and is ready with exit status 0.
    once: bool = False
    #: Dying before it was ready is tried again within `start_limit` instead of given up.
    retry_start: bool = False
    #: Before a restart, however often it died in a row.
    longest_pause: float = 30
    #: Asked in this order, each with a limit; SIGKILL after the last.
    stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10),)
    #: What the kernel sends when this process is gone without a word (Linux).
    orphaned: signal.Signals = signal.SIGKILL
    account: Account | None = None


class Child:
    """A process of a spec, started any number of times, one after the other."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log_file = logs / f"{spec.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """As subprocess gives it (negative: a signal); None while it runs or before a start."""
        return self._process.poll() if self._process is not None else None

    def spawn(self) -> None:
        """Start it. Call from the main thread: the kernel ties a child to its parent's thread."""
        self.spec.prepare()
        self.rotate_log()
        with _open_log(self.log_file) as log:
            self._log_start = log.tell()
            user = self.spec.account
            self._process = subprocess.Popen(
                self.spec.command,
                env=self.spec.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal reaches the supervisor alone, which asks in order.
                process_group=0,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
                # After the change of user, which would clear it.
                preexec_fn=bind_to_parent(self.spec.orphaned),  # noqa: PLW1509 (one thread)
            )

    def ask_to_stop(self, hurry: Callable[[], bool]) -> None:
        """Stop it and wait for its end. Bounded: SIGKILL when nothing else helps."""
        for number, limit in self.spec.stop:
            if self.pid is None or hurry():
                break
            self._process_or_fail().send_signal(number)
            self._wait(limit, hurry)
        if (pid := self.pid) is not None:
            os.killpg(pid, signal.SIGKILL)
            self._process_or_fail().wait(timeout=10)

    def rotate_log(self) -> None:
        """Keep the log under its limit: its content moves to `.log.1`, the file stays open."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT_BYTES:
            content = self.log_file.read_bytes()
            with _open_log(self.log_file.with_suffix(".log.1")) as old:
                old.truncate(0)
                old.write(content)
            os.truncate(self.log_file, 0)
            self._log_start = 0

    def last_words(self) -> str:
        """The last line it logged since its last start, or nothing."""
        with self.log_file.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _wait(self, limit: float, hurry: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit
        while self.pid is not None and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)

    def _process_or_fail(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was never started")
        return self._process


def describe_exit(status: int | None) -> str:
    """An exit status in words."""
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _open_log(path: Path) -> BufferedWriter:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def bind_to_parent(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `number` when the thread that started the child is gone
    (Linux)."""
    parent = os.getpid()

    def bind() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return bind
