"""Keeps the leases of this process alive, and drops what it can no longer call its own.

A shard that the database says is lost (cancelled, or reaped) is aborted within about a second; one
that was not confirmed for `self_fence` seconds is given up without asking anybody, by this
process's monotonic clock alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import fleet
from storage import leases as sql
from storage.database import Database
from workers.background import Background
from workers.lease import Lease, Leases
from workers.shards import ShardRunner, WorkerIdentity

log = get_logger(__name__)

VAIN_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class HeartbeatTiming:
    """All in seconds."""

    heartbeat: float
    self_fence: float
    check: float = 1.0  #: how soon a lost shard is noticed, and how fresh the worker's figures are


class Heartbeat(Background):
    """A thread of its own. `on_replaced` is called when another process took this slot."""

    def __init__(
        self,
        *,
        database: Database,
        identity: WorkerIdentity,
        held: Leases,
        runner: ShardRunner,
        timing: HeartbeatTiming,
        stats: Callable[[], Mapping[str, object]],
        on_replaced: Callable[[], None],
    ) -> None:
        super().__init__("heartbeat")
        self._database = database
        self._identity = identity
        self._held = held
        self._runner = runner
        self._timing = timing
        self._stats = stats
        self._on_replaced = on_replaced
        self._strays: set[tuple[int, int]] = set()
        self._turns = 0
        self._seen_turns = 0
        self._vain_looks = 0

    def _run(self) -> None:
        last_extension = float("-inf")
        while not self._stopping.wait(self._timing.check):
            try:
                if time.monotonic() - last_extension >= self._timing.heartbeat:
                    self._extend()
                    last_extension = time.monotonic()
                self._beat()
            except Unavailable as error:
                log.warning("heartbeat.missed", reason=error.message)
            self._fence()
            self._turns += 1

    def _extend(self) -> None:
        if leases := self._held.all():
            with self._database.begin() as conn:
                keys = [lease.key for lease in leases]
                kept = sql.heartbeat(conn, keys, self._identity.lease_seconds)
            self._settle(leases, kept, extended=True)
        self._release_strays()

    def _release_strays(self) -> None:
        """Give back shards that are leased to this process and not known to it: the answer to
        their claim was lost, or their release. Twice seen, since a claim may be on its way."""
        who = self._identity
        with self._database.begin() as conn:
            leased = sql.of_boot(conn, who.slot, who.boot_id)
        strays = leased - {lease.key for lease in self._held.all()}
        for shard, epoch in sorted(strays & self._strays):
            with self._database.begin() as conn:
                sql.release(conn, shard, epoch)
            log.warning("shard.found", shard=shard, epoch=epoch)
        self._strays = strays

    def _beat(self) -> None:
        """Say that this worker lives, and how it is doing; learn of cancelled and reaped shards."""
        who = self._identity
        leases = self._held.all()
        with self._database.begin() as conn:
            ours = fleet.beat(conn, who.slot, who.boot_id, self._stats())
            kept = sql.held(conn, [lease.key for lease in leases]) if leases else set()
        self._settle(leases, kept, extended=False)
        if not ours:
            log.error("worker.replaced", slot=who.slot)
            self._on_replaced()

    def _settle(self, leases: list[Lease], kept: set[int], *, extended: bool) -> None:
        for lease in leases:
            if lease.shard.id not in kept:
                # A shard that ended by its own last commit is gone from the leased ones, too.
                if not lease.committing and not lease.over:
                    self._runner.lose(lease)
            elif extended:
                lease.extend()

    def fence_if_hung(self) -> None:
        """For another thread that looks once a second: fence where this one makes no turn. Only at
        the third look in vain, since a process that stood still shall ask the database first."""
        if self._turns != self._seen_turns:
            self._seen_turns, self._vain_looks = self._turns, 0
            return
        self._vain_looks += 1
        if self._vain_looks >= VAIN_LOOKS:
            self._fence()

    def _fence(self) -> None:
        for lease in self._held.all():
            if not lease.over and lease.unconfirmed_for() > self._timing.self_fence:
                log.warning("shard.fenced", shard=lease.shard.id)
                # Finished outcomes are still offered: the database's own fence decides on them.
                self._runner.abort(lease.open_ids())
