"""Keeps bulk coming: asks for a claim by a message as soon as the engine has room for more, and
claims by itself where no message comes of it, so that a broker that is away, or a consumer that
stopped, costs no throughput. While messages are rare it looks into the database every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage.states import Lane
from workers.background import JOIN_TIMEOUT, Background
from workers.generate import run_all
from workers.lanes import LaneShares
from workers.shards import ShardRunner

log = get_logger(__name__)

PAUSE: Final = 0.02  # seconds between two looks
ANSWER: Final = 0.5  # seconds that a wake-up may take to become a claim, before the next one


class Poller(Background):
    """A thread that asks and looks, and helpers that do the work of messages that do not come."""

    def __init__(
        self,
        runner: ShardRunner,
        shares: LaneShares,
        interval: float,
        *,
        wake: Callable[[], None],
    ) -> None:
        super().__init__("poller")
        self._runner = runner
        self._shares = shares
        self._interval = interval
        self._wake = wake
        self._asked = self._looked = float("-inf")
        self._answered = True  # the last wake-up was; where not, nobody waits for the next

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End and wait; False when it did not end in time."""
        self._stopping.set()
        self._runner.room.set()
        self._runner.claimed.set()
        return super().stop(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            has_room = self._runner.room.wait(self._interval)
            if self._silent() and time.monotonic() - self._looked >= self._interval:
                self._look()
            if has_room and self._shares.any_free(Lane.BULK):
                self._ask()
            else:
                self._stopping.wait(PAUSE)

    def _silent(self) -> bool:
        return self._shares.silence() >= self._interval

    def _look(self) -> None:
        """Claim chats, and bulk where the last claim found none: what comes now is announced by
        messages alone. Of other bulk room is told, and then it is asked for."""
        self._looked = time.monotonic()
        self._start_helpers(Lane.EXPRESS)
        if self._runner.dry:
            self._start_helpers(Lane.BULK)
        else:
            self._runner.look_for_room()

    def _ask(self) -> None:
        """One wake-up at a time: what its claim brings decides whether there is room for more. One
        that came to nothing here, for the broker is away or another worker took it, is made good by
        a claim of ours."""
        asked = time.monotonic()
        if self._shares.silence() < asked - self._asked:  # a message came since the last one
            self._answered = True
        self._asked = asked
        self._runner.claimed.clear()
        self._wake()
        self._answered = self._runner.claimed.wait(ANSWER if self._answered else 0)
        if not self._answered and self._shares.take(Lane.BULK):
            self._start_helper(Lane.BULK)
        self._runner.look_for_room()

    def _start_helpers(self, lane: Lane) -> None:
        while not self._stopping.is_set() and self._shares.take(lane):
            if not self._start_helper(lane):
                return

    def _start_helper(self, lane: Lane) -> bool:
        """Claim with a share already taken; True when a thread now works with it."""
        try:
            leases = self._runner.claim(lane)
        except Unavailable as error:
            log.warning("poll.failed", reason=error.message)
            self._stopping.wait(self._interval)
            leases = []
        if not leases:
            self._shares.give_back(lane)
            return False
        log.info("poll.claimed", lane=lane.value, shards=len(leases))

        def work() -> None:
            batch = leases
            try:
                # Chats follow each other by themselves until none is left or the broker speaks.
                while batch:
                    run_all(self._runner, batch)
                    if self._stopping.is_set() or lane is Lane.BULK or not self._silent():
                        return
                    batch = self._runner.claim(lane)
            except Unavailable as error:
                log.warning("poll.failed", reason=error.message)
            finally:
                self._shares.give_back(lane)

        threading.Thread(target=work, name=f"poll-{lane.value}", daemon=True).start()
        return True
