"""How many threads each lane may use, so that bulk never takes the ones kept for chats."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Final

from storage.states import Lane

SHARD_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class LaneSizes:
    """Threads per lane, and rows that one thread claims at once."""

    bulk: int
    express: int
    express_rows: int

    @classmethod
    def for_rows(cls, max_rows: int, express_rows: int) -> LaneSizes:
        """Enough bulk shards to fill the engine and two to read ahead; for chats as many as run at
        once, since one that came alone keeps its thread to its end."""
        bulk = math.ceil(max_rows / SHARD_ROWS) + 2
        return cls(bulk=bulk, express=express_rows, express_rows=express_rows)

    @property
    def claim_rows(self) -> dict[Lane, int]:
        """A full shard of bulk, or as many chats as the engine keeps rows for."""
        return {Lane.BULK: SHARD_ROWS, Lane.EXPRESS: self.express_rows}

    @property
    def threads(self) -> int:
        return self.bulk + self.express


class LaneShares:
    """Counts the threads in use, whoever uses them: Celery's, or the database poll's."""

    def __init__(self, sizes: LaneSizes) -> None:
        self.sizes = sizes
        self._free = {
            Lane.BULK: threading.Semaphore(sizes.bulk),
            Lane.EXPRESS: threading.Semaphore(sizes.express),
        }
        self._last_message = float("-inf")

    def take(self, lane: Lane) -> bool:
        """One thread's share, or False at once."""
        return self._free[lane].acquire(blocking=False)

    def give_back(self, lane: Lane) -> None:
        self._free[lane].release()

    def message_came(self) -> None:
        self._last_message = time.monotonic()

    def silence(self) -> float:
        """Seconds since the last message of the broker."""
        return time.monotonic() - self._last_message
