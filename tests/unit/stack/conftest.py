"""Small children for the supervisor: Python one-liners that live, die or write a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from penstock.stack.child import ChildSpec

Make = Callable[..., ChildSpec]


@pytest.fixture
def make_spec() -> Make:
    def make(name: str, code: str = "import time; time.sleep(60)", **more: object) -> ChildSpec:
        command = (sys.executable, "-S", "-c", code)
        return ChildSpec(name=name, command=command, environment=dict(os.environ), **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def until(condition: Callable[[], object], limit: float = 15.0) -> None:
    """Wait for a condition; fail after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
