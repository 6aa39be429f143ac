"""Makes admissions durable before the engine needs them, so that its loop seldom waits for SQL.

The rows that the engine will take next, in the order they were handed to it, are admitted a few
ahead by a thread of their own; whatever the engine takes out of that order is admitted while it
waits. So an admission is always written before the step that runs it. Knows no engine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import leases as sql
from storage.database import Database
from workers.background import JOIN_TIMEOUT, Background
from workers.lease import Lease

log = get_logger(__name__)

RETRY: Final = 0.5  # seconds after the database was away
IDLE: Final = 1.0  # seconds between two looks when nobody calls

#: A row as the engine names it, and where it is.
Rows = Mapping[str, tuple[Lease, int]]


class Admissions(Background):
    """`ahead`: rows that are admitted before they are asked for. `on_lost` is called with a lease
    that belongs to another epoch, from any thread."""

    def __init__(self, database: Database, *, ahead: int, on_lost: Callable[[Lease], None]) -> None:
        super().__init__("admissions")
        self._database = database
        self._most_ahead = ahead
        self._refill = ahead // 4  # few transactions, and enough left to go on with meanwhile
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._expected: OrderedDict[str, tuple[Lease, int]] = OrderedDict()
        self._ahead: set[str] = set()

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End and wait; False when it did not end in time."""
        self._stopping.set()
        self._wanted.set()
        return super().stop(timeout)

    def expect(self, rows: Rows) -> None:
        """The engine gets these next. Never blocks."""
        with self._lock:
            self._expected.update(rows)
        self._wanted.set()

    def already(self, ids: Iterable[str]) -> None:
        """These were admitted by other means."""
        with self._lock:
            self._ahead.update(ids)

    def at_once(self, rows: Rows) -> None:
        """Admit these now, by the caller's thread. Raises `Unavailable`."""
        written = self._write(rows)
        with self._lock:
            self._ahead.update(written)

    def forget(self, request_id: str) -> None:
        """The engine is done with it, whether it ran or not."""
        with self._lock:
            self._expected.pop(request_id, None)
            self._ahead.discard(request_id)

    def admit(self, rows: Rows) -> set[str]:
        """Those that may run now; the others' leases are lost. Blocks for the database where the
        engine was not foreseen. Raises `Unavailable`."""
        with self._lock:
            ready = self._ahead & rows.keys()
        missing = {id: row for id, row in rows.items() if id not in ready}
        if missing:
            ready |= self._write(missing)
        with self._lock:
            self._ahead -= rows.keys()
            for id in rows:
                self._expected.pop(id, None)
            wanted = len(self._ahead) <= self._refill
        if wanted:
            self._wanted.set()
        return ready

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait(IDLE)
            self._wanted.clear()
            try:
                while rows := self._next():
                    self._take_ahead(rows)
            except Unavailable as error:
                log.warning("admission.postponed", reason=error.message)
                self._stopping.wait(RETRY)

    def _next(self) -> dict[str, tuple[Lease, int]]:
        """Those to admit now: none as long as a quarter of the way ahead is left."""
        with self._lock:
            if len(self._ahead) > self._refill:
                return {}
            return dict(islice(self._expected.items(), self._most_ahead - len(self._ahead)))

    def _take_ahead(self, rows: Rows) -> None:
        written = self._write(rows)
        with self._lock:
            # What left the engine meanwhile, or was taken by it, is expected no more.
            still = written & self._expected.keys()
            self._ahead |= still
            for id in rows:
                self._expected.pop(id, None)

    def _write(self, rows: Rows) -> set[str]:
        """One transaction, a statement for each shard. Idempotent."""
        positions: dict[Lease, dict[int, str]] = defaultdict(dict)
        for id, (lease, position) in rows.items():
            positions[lease][position] = id
        written: set[str] = set()
        lost: list[Lease] = []
        with self._database.begin() as conn:
            for lease in sorted(positions, key=lambda lease: lease.key):
                if sql.admit(conn, *lease.key, list(positions[lease])):
                    written.update(positions[lease].values())
                else:
                    lost.append(lease)
        for lease in lost:
            self._on_lost(lease)
        return written
