"""A contender's process, seen from the program that drives it: started, asked, ended.

Only one computes at a time. The others are stopped by a signal, for some spin while they wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.protocol import Answer

START_LIMIT = 300.0  #: seconds to load
RUN_LIMIT = 1_800.0  #: seconds for one workload
END_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Contender:
    """What to start: a module, in which environment, with which options."""

    name: str
    module: str
    python: Path
    options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class ContenderFailed(Exception):
    """Raised when a contender's process says that it failed, or ends, or says nothing for long."""


class Worker:
    """One running contender. Not for several threads."""

    def __init__(self, contender: Contender, log: Path) -> None:
        self.contender = contender
        self.versions: dict[str, str] = {}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [contender.python, "-m", contender.module, json.dumps(dict(contender.options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **contender.environment},
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ready(self) -> None:
        """Wait until it is loaded. Raises ContenderFailed."""
        self.versions = self._next(START_LIMIT)["versions"]
        self.pause()

    def pause(self) -> None:
        """It computes nothing until it is resumed."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Idempotent."""
        self._process.send_signal(signal.SIGCONT)

    def run(
        self, kind: str, workload: Path, start: int, rows: int, settings: Mapping[str, Any]
    ) -> Answer:
        """Raises ContenderFailed."""
        message = {
            "kind": kind,
            "workload": str(workload),
            "start": start,
            "rows": rows,
            "settings": dict(settings),
        }
        self.resume()
        try:
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()
        except OSError as error:
            raise ContenderFailed(f"{self.contender.name} is gone") from error
        answer = self._next(RUN_LIMIT)
        self.pause()
        return Answer(**{**answer, "picks": tuple(answer["picks"])})

    def ask_to_end(self) -> None:
        """Idempotent."""
        self.resume()
        with contextlib.suppress(OSError):  # it is gone, and a line to it was not
            self._input.close()

    def close(self) -> None:
        """End it. Idempotent."""
        self.ask_to_end()
        try:
            self._process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(END_LIMIT)

    @property
    def _input(self) -> Any:
        return self._process.stdin

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 # it is a pipe
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _next(self, limit: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty as error:
            raise ContenderFailed(f"no answer in {limit:.0f} s") from error
        if not line:
            raise ContenderFailed(f"its process ended with {self._process.wait(END_LIMIT)}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise ContenderFailed(message["error"])
        return message
