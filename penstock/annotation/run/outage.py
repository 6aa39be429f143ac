"""A service that is away, or has no room, is waited for, and that is said once. Knows no job."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from penstock.annotation.records import Watcher
from penstock.errors import PenstockError

T = TypeVar("T")

PAUSE = 1.0  # seconds between two attempts, each of which has the client's own patience


def outlasting(ask: Callable[[], T], watcher: Watcher) -> T:
    """The result of `ask`, repeated as long as the service is away. Raises any other error."""
    away = False
    while True:
        try:
            result = ask()
        except PenstockError as error:
            if not error.retryable:
                raise
            if not away:
                watcher.note(f"Waiting for the service: {error.message}")
            away = True
            time.sleep(error.retry_after or PAUSE)
        else:
            if away:
                watcher.note("The service is there again.")
            return result
