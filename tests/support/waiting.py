"""Waiting for the real thing."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(what: str, condition: Callable[[], bool], timeout: float = 80) -> None:
    """Poll a condition of the real system; the test fails when it does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)
