"""`penstock up` as a process of its own, and data directories for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[3]
START_LIMIT = 90.0  # seconds, on a loaded machine
Json = dict[str, Any]


def until(what: str, condition: Callable[[], object], limit: float = 60.0) -> None:
    """Wait for a condition of the real system; fail after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Up:
    """One running `penstock up`."""

    def __init__(
        self,
        data: Path,
        *options: str,
        python: str = sys.executable,
        user: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.data = data
        self.key = (environment or {}).get("PENSTOCK_API__KEYS")
        base = {key: value for key, value in os.environ.items() if "PENSTOCK" not in key}
        base |= {"PYTHONPATH": str(ROOT)} | (environment or {})
        defaults = ("--model", "fake", "--port", "0", "--flower-port", "0")
        self.process = subprocess.Popen(
            [python, "-P", "-m", "penstock", "up", "--data-dir", str(data), *defaults, *options],
            cwd=data.parent,
            env=base,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def facts(self) -> Json:
        """`stack.json`, once the stack is ready."""
        file = self.data / "stack.json"
        content: Json = {}

        def ready() -> bool:
            nonlocal content
            assert self.process.poll() is None, self.output()
            content = json.loads(file.read_text()) if file.exists() else {}
            return bool(content.get("pid") == self.process.pid)  # not a killed one's

        until("the stack is ready", ready, START_LIMIT)
        return content

    def ask(self, path: str, body: Json | None = None) -> Json:
        """One HTTP question to the API."""
        key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(
            self.facts["api_url"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | key,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: Json = json.loads(answer.read())
        return content

    def post_job(self, prompts: int, max_tokens: int = 8) -> str:
        messages = [f"prompt {number}" for number in range(prompts)]
        answer = self.ask("/batch-generate", {"messages": messages, "max_tokens": max_tokens})
        return str(answer["request_id"])

    def finish_job(self, request_id: str, limit: float = 60.0) -> Json:
        """Wait for the end of a job; the answer."""
        answer: Json = {}

        def finished() -> bool:
            nonlocal answer
            answer = self.ask(f"/batch-result/{request_id}?wait=2")
            return bool(answer["status"] != "processing")

        until(f"{request_id} ends", finished, limit)
        return answer

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop as a terminal does, by its process group; its exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(timeout=60)

    def output(self) -> str:
        """All it has printed; only after its end."""
        if self.process.stdout is None or self.process.stdout.closed:
            return ""
        text = self.process.stdout.read()
        self.process.stdout.close()
        return text

    def end(self) -> None:
        """Whatever the test did to it: gone."""
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)
        self.output()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """In a folder that other accounts may pass through, as PostgreSQL must when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    folder.chmod(0o755)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def up(data_dir: Path) -> Iterator[Callable[..., Up]]:
    """Start a stack in the test's data directory."""
    started: list[Up] = []

    def start(*options: str, **more: Any) -> Up:
        started.append(Up(data_dir, *options, **more))
        return started[-1]

    yield start
    for stack in started:
        stack.end()
