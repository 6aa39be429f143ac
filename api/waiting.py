"""Wakes coroutines that wait for jobs. One thread listens to PostgreSQL for all of them, and asks
once a second about all their jobs in one query, so that a lost notification costs a second.

Knows no HTTP; tells only that a job is worth another look, not how it stands.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from penstock.errors import Overloaded, Unavailable
from penstock.telemetry import get_logger
from storage import overview
from storage.database import DONE_CHANNEL, Database

log = get_logger(__name__)

POLL: Final = 1.0  # seconds
LISTEN: Final = 0.25  # seconds until it looks whether to stop or to ask


class Watch:
    """One coroutine's wait for one job."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.news = True  #: of the job, since who waits last set it to False

    def ring(self) -> None:
        self.news = True
        self._event.set()

    def nudge(self) -> None:
        """Wake without news of the job: there is something else to see."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Until there may be news: False when the time ran out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
                self._event.clear()
                return True
        return False


class Waiters:
    """All who wait in this process. `start` and `watch` belong to the event loop."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most
        self._lock = threading.Lock()
        self._watches: dict[str, set[Watch]] = {}
        self._count = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiters", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def closing(self) -> bool:
        """The process is about to end: whoever waits should answer with what there is."""
        return self._stopping.is_set()

    def release(self) -> None:
        """Let everybody who waits go, now and from now on."""
        self._stopping.set()
        self._ring(list(self._watches))

    def close(self) -> None:
        """Stop the thread. Blocks for the listener's last wait."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def count(self) -> int:
        """Clients that wait at this moment."""
        return self._count

    def check_room(self) -> None:
        """Raises `Overloaded` where nobody more may wait."""
        if self._count >= self._most:
            raise Overloaded("Too many clients are waiting for answers.")

    @contextmanager
    def watch(self, batch_id: str) -> Iterator[Watch]:
        """News of one job from now on. Look at the job after this, then wait."""
        self.check_room()
        watch = Watch()
        with self._lock:
            self._count += 1
            self._watches.setdefault(batch_id, set()).add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._count -= 1
                self._watches[batch_id].discard(watch)
                if not self._watches[batch_id]:
                    del self._watches[batch_id]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except Unavailable:
                self._stopping.wait(POLL)
            except Exception as error:  # this thread must outlive whatever a driver raises
                log.error("listener.failed", error=type(error).__name__)
                self._stopping.wait(POLL)

    def _listen(self) -> None:
        with self._database.listen(DONE_CHANNEL) as listener:
            asked = 0.0
            while not self._stopping.is_set():
                if time.monotonic() - asked >= POLL:
                    asked = time.monotonic()
                    self._wake(self._settled())
                self._wake(listener.wait(LISTEN))

    def _settled(self) -> list[str]:
        with self._lock:
            ids = list(self._watches)
        if not ids:
            return []
        with self._database.begin() as conn:
            return overview.settled(conn, ids)

    def _wake(self, ids: list[str]) -> None:
        if ids:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._ring, ids)

    def _ring(self, ids: Iterable[str]) -> None:
        for batch_id in ids:
            for watch in self._watches.get(batch_id, ()):
                watch.ring()
