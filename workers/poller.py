"""Keeps bulk coming: asks for a claim as soon as the engine has room for another shard, and works
without a message when none comes, so that a broker that is away, or a consumer that stopped, costs
no throughput. Looks into the database every few seconds."""

from __future__ import annotations

import threading
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
    """A thread that looks, and helpers that work while the broker stays silent."""

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

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End and wait; False when it did not end in time."""
        self._stopping.set()
        self._runner.room.set()
        self._runner.claimed.set()
        return super().stop(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            has_room = self._runner.room.wait(self._interval)
            if self._shares.silence() >= self._interval:
                self._runner.look_for_room()
                for lane in Lane:
                    self._start_helpers(lane)
            elif has_room and self._shares.any_free(Lane.BULK):
                self._ask()
                continue
            self._stopping.wait(PAUSE)

    def _ask(self) -> None:
        """One wake-up at a time: what its claim brings decides whether there is room for more. One
        that came to nothing here, for another worker took it, is made good by a claim of ours."""
        self._runner.claimed.clear()
        self._wake()
        if not self._runner.claimed.wait(ANSWER) and self._shares.take(Lane.BULK):
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
                # Go on by itself until nothing is left or the broker speaks again.
                while batch:
                    run_all(self._runner, batch)
                    if self._stopping.is_set() or self._shares.silence() < self._interval:
                        return
                    batch = self._runner.claim(lane)
            except Unavailable as error:
                log.warning("poll.failed", reason=error.message)
            finally:
                self._shares.give_back(lane)

        threading.Thread(target=work, name=f"poll-{lane.value}", daemon=True).start()
        return True
