"""Clients that change their minds all at once: what ends a job, and what begins it again, meet in
the middle of everything else. Knows the API alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from tests.chaos.clients import Book, Client, Job

AT_ONCE = 4  #: jobs of one race


class Races:
    """Each starts its threads and returns; `threads` are to be joined."""

    def __init__(self, client: Client, book: Book, draw: random.Random) -> None:
        self._client, self._book, self._draw = client, book, draw
        self.threads: list[threading.Thread] = []

    def kinds(self) -> dict[str, Callable[[], bool]]:
        """By name, as `Faults` has them."""
        return {"cancel race": self.cancel, "retry race": self.retry, "expiry race": self.expire}

    def cancel(self) -> bool:
        """Open jobs, each cancelled twice and tried again meanwhile."""
        jobs = self._book.some(self._draw, AT_ONCE, finished=False)
        return self._all_at_once(jobs, self._client.cancel, self._client.retry, self._client.cancel)

    def retry(self) -> bool:
        """Jobs that ended, each tried again twice and cancelled meanwhile."""
        jobs = self._book.some(self._draw, AT_ONCE, finished=True)
        return self._all_at_once(jobs, self._client.retry, self._client.cancel, self._client.retry)

    def expire(self) -> bool:
        """New jobs whose time runs out while they run."""
        for _ in range(AT_ONCE):
            self._start(lambda: self._client.post("expire"))
        return True

    def _all_at_once(self, jobs: list[Job], *actions: Callable[[Job], None]) -> bool:
        for job in jobs:
            for action in actions:
                self._start(lambda job=job, action=action: action(job))  # type: ignore[misc]
        return bool(jobs)

    def _start(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        self.threads.append(thread)
