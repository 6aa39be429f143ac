"""How many threads each lane may use, so that bulk never takes the ones kept for chats."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Final

from storage.states import Lane
from storage.tables import SHARD_SIZE

#: Seconds that the rows of one claim of bulk last, where that is more than one shard: as much
#: later do others have their turn.
CLAIM_SECONDS: Final = 1.0
MOST_CLAIMED: Final = 16 * SHARD_SIZE  # rows


@dataclass(frozen=True, slots=True)
class LaneSizes:
    """Rows that run at once, and the threads that this takes. A thread stays with its shard to the
    end of the longest answer, when most others are long done: `tails` are there for that."""

    rows: int
    express_rows: int

    @property
    def bulk(self) -> int:
        """Shards that fill the engine, and two to read ahead."""
        return math.ceil(self.rows / SHARD_SIZE) + 2

    @property
    def tails(self) -> int:
        return 3 * self.bulk

    @property
    def express(self) -> int:
        """As many as run at once, since a chat that came alone keeps its thread to its end."""
        return self.express_rows

    @property
    def fill(self) -> int:
        """Bulk rows that wait or run, below which more is claimed at any pace."""
        return self.full(0)

    def full(self, pace: float) -> int:
        """The same for an engine that ends `pace` rows a second: those that run, and a quarter of a
        claim beside them, so that the next one comes in time."""
        return self.rows + max(SHARD_SIZE, self.claimed(pace) // 4)

    def claimed(self, pace: float) -> int:
        """Bulk rows of one claim. It takes the same time for few as for many, and so do its message
        and its task."""
        return min(max(SHARD_SIZE, round(CLAIM_SECONDS * pace)), MOST_CLAIMED)

    @property
    def admit_ahead(self) -> int:
        """Bulk rows whose admission is written before the engine asks: a quarter of those that
        run, so that few are suspected of a crash that they were not in."""
        return max(16, self.rows // 4)

    @property
    def threads(self) -> int:
        return self.bulk + self.tails + self.express


class LaneShares:
    """Counts the threads in use, whoever uses them: Celery's, or the database poll's."""

    def __init__(self, sizes: LaneSizes) -> None:
        self.sizes = sizes
        self._free = {
            Lane.BULK: threading.Semaphore(sizes.bulk + sizes.tails),
            Lane.EXPRESS: threading.Semaphore(sizes.express),
        }
        self._last_message = float("-inf")

    def take(self, lane: Lane) -> bool:
        """One thread's share, or False at once."""
        return self._free[lane].acquire(blocking=False)

    def give_back(self, lane: Lane) -> None:
        self._free[lane].release()

    def any_free(self, lane: Lane) -> bool:
        """Whether a thread could be taken now."""
        if free := self.take(lane):
            self.give_back(lane)
        return free

    def message_came(self) -> None:
        self._last_message = time.monotonic()

    def silence(self) -> float:
        """Seconds since the last message of the broker."""
        return time.monotonic() - self._last_message
