"""Runs claimed shards: prompts to the engine, outcomes to the committer, the rest back in line.

Knows storage and the engine's seam; knows no Celery and no torch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from batching.engine import Engine
from batching.requests import EngineOutcome, EngineRequest
from models.runner import Codec, FinishReason, ModelInfo
from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import leases as sql
from storage.database import Database
from storage.records import ClaimedShard, Outcome
from storage.states import Lane
from storage.tables import SHARD_SIZE
from workers import params
from workers.admissions import Admissions, Rows
from workers.committer import Committer
from workers.lanes import LaneSizes
from workers.lease import Lease, Leases
from workers.outcomes import as_outcome, counted, failed
from workers.pace import Pace
from workers.prompts import Prompts, Refused
from workers.publisher import Publish, publish_nothing
from workers.reuse import Reuse, ReuseRules, Row

log = get_logger(__name__)

#: Shards of one claim, however small.
MAX_SHARDS: Final = 32


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who holds a lease. `boot_id` is new with every process, `slot` is not."""

    slot: str
    boot_id: str
    model: str
    lease_seconds: float


class ShardRunner:
    """Claims and runs shards for every thread that asks."""

    def __init__(
        self,
        *,
        database: Database,
        codec: Codec,
        info: ModelInfo,
        identity: WorkerIdentity,
        held: Leases,
        sizes: LaneSizes,
        reuse: ReuseRules | None = None,
    ) -> None:
        self._database = database
        self._prompts = Prompts(codec, info.context)
        self._identity = identity
        self._held = held
        self._sizes = sizes
        self._draining = threading.Event()
        self._claiming = {lane: threading.Lock() for lane in Lane}
        self._pace = Pace()  # of bulk
        self._last_turn = dict.fromkeys(Lane, "")  # the owner that the last claim ended with
        self.dry = True  #: The last claim of bulk found nothing, or there was none.
        #: Set when bulk has room for another shard, and there may be one.
        self.room = threading.Event()
        self._counting = threading.Lock()
        self._lease_losses = self._repeats = 0
        self.claimed = threading.Event()  #: Set when the database answered a claim of bulk.
        self.reuse = Reuse(
            database=database,
            info=info,
            rules=reuse or ReuseRules(),
            answer=self._answer,
            lead=self._lead,
        )
        self.admissions = Admissions(database, ahead=sizes.admit_ahead, on_lost=self.lose)
        self.engine: Engine
        self.committer: Committer
        self.publish: Publish = publish_nothing  #: who wants a chat's text as it comes

    def attach(self, engine: Engine, committer: Committer) -> None:
        """Both need this object's callbacks first, so they come after it."""
        self.engine, self.committer = engine, committer

    def drain(self) -> None:
        """Claim nothing more."""
        self._draining.set()

    def stats(self) -> dict[str, int]:
        """Since the start: leases that another epoch took, and prompts claimed here that an earlier
        lease had begun and lost."""
        return {"lease_losses": self._lease_losses, "repeats": self._repeats}

    def claim(self, lane: Lane) -> list[Lease]:
        """Lease the next shard of a lane, or several: small ones that together are no larger than
        a full one, for a thousand jobs of one prompt each must not run one by one; or as many as a
        fast engine ends in a second. Each claim is the next owner's turn; what is left of it goes
        to the owners after him. Nothing when the engine has enough bulk to go on with. Raises
        `Unavailable`."""
        with self._claiming[lane]:
            if self._draining.is_set() or not self.engine.alive() or not self._has_room(lane):
                return []
            found = [Lease(one) for one in self._claim_next(lane)]
            for lease in found:
                self._held.add(lease)
            if lane is Lane.BULK:
                self.dry = not found
                self.claimed.set()
        return found

    def _claim_next(self, lane: Lane) -> list[ClaimedShard]:
        claimed = self._claim(lane, self._last_turn[lane])
        if claimed and not claimed[0].alone:
            with contextlib.suppress(Unavailable):  # the first one is ours already
                claimed += self._claim_more(lane, claimed[0])
        if claimed:
            self._last_turn[lane] = claimed[-1].owner
        return claimed

    def _has_room(self, lane: Lane) -> bool:
        full = self._sizes.full(self._pace.rate)
        return lane is Lane.EXPRESS or self._held.unended(lane) < full

    def look_for_room(self) -> None:
        """Forget what was told of room, and tell how it is now."""
        self.room.clear()
        self._tell_room()

    def _tell_room(self) -> None:
        if self.dry or self._draining.is_set() or self.room.is_set():
            return
        if self._has_room(Lane.BULK):
            self.room.set()

    def _claim_more(self, lane: Lane, first: ClaimedShard) -> list[ClaimedShard]:
        """Of the same owner, then of the next ones: what a claim may bring beside its first."""
        rows = max(1, len(first.requests))
        bulk = self._sizes.claimed(self._pace.rate)
        most = self._sizes.express_rows if lane is Lane.EXPRESS else bulk
        limit = min(most // rows, MAX_SHARDS) - 1
        if limit < 1:
            return []
        return self._claim(lane, first.owner, again=True, limit=limit, rows=most - rows)

    def _claim(
        self, lane: Lane, after: str, *, again: bool = False, limit: int = 1, rows: int = SHARD_SIZE
    ) -> list[ClaimedShard]:
        who = self._identity
        with self._database.begin() as conn:
            claimed = sql.claim(
                conn,
                model=who.model,
                lane=lane,
                slot=who.slot,
                boot_id=who.boot_id,
                lease=who.lease_seconds,
                limit=limit,
                rows=rows,
                after=after,
                again=again,
            )
            if lane is Lane.EXPRESS:  # it runs at once, so one transaction does for both
                for one in (one for one in claimed if self._admits_at_claim(one)):
                    sql.admit(conn, one.id, one.epoch, [row.position for row in one.requests])
        return claimed

    def _admits_at_claim(self, shard: ClaimedShard) -> bool:
        """Of a chat: the engine will surely take it."""
        return not shard.alone and not self.reuse.wants(shard)

    def run(self, lease: Lease) -> dict[str, object]:
        """Run one claimed shard to its end; blocks. Returns Flower's summary."""
        self.begin(lease)
        return self.finish(lease)

    def begin(self, lease: Lease) -> None:
        """Hand every prompt to the engine, or its reason to the committer."""
        try:
            self._begin(lease)
        except BaseException:
            # Unheld, it is no longer extended, and another worker gets it when it runs out.
            self.lose(lease)
            self._held.discard(lease)
            raise

    def _begin(self, lease: Lease) -> None:
        shard = lease.shard
        log.debug("shard.claimed", shard=shard.id, epoch=shard.epoch, batch=shard.batch_id)
        with self._counting:
            self._repeats += sum(request.repeated for request in shard.requests)
        to_run = self.reuse.begin(lease, self._ready(lease))
        rows = {one.id: (lease, position) for position, one in to_run.items()}
        self._foresee(lease, rows)
        self._admit_looked_for(shard, rows)
        on_token = self.publish(shard)
        for one in to_run.values():
            self.engine.submit(one, self.on_done, on_token)
        self._tell_room()

    def _ready(self, lease: Lease) -> dict[int, EngineRequest]:
        """The prompts that need an answer. The others have their outcome at once: one that cannot
        run, and one whose tokens are all that was asked for."""
        ready = {}
        for position, prompt in self._prompts.of(lease):
            asked = lease.asked_of(position)
            if isinstance(prompt, Refused):
                outcome = failed(position, prompt.reason, prompt.message, prompt.tokens)
            elif params.counts(asked):
                outcome = counted(position, prompt, params.labels(asked))
            else:
                ready[position] = prompt
                continue
            lease.ended()
            self.committer.put(lease, outcome)
        return ready

    def _answer(self, lease: Lease, outcome: Outcome) -> None:
        self.committer.put(lease, outcome)

    def _lead(self, row: Row) -> None:
        """The engine gets a prompt that waited for the answer to an equal one. For the engine's
        own thread too, so nothing is written here: it asks for the admission when it takes it."""
        self._foresee(row.lease, {row.request.id: (row.lease, row.position)})
        self.engine.submit(row.request, self.on_done, self.publish(row.lease.shard))

    def _foresee(self, lease: Lease, rows: Rows) -> None:
        """Say what the engine will take; never blocks. A suspect is admitted by the engine's call
        alone: a crash that it did not see must not count against it."""
        shard = lease.shard
        if shard.alone or not rows:
            return
        if shard.lane is Lane.BULK:
            self.admissions.expect(rows)
        elif self._admits_at_claim(shard):
            self.admissions.already(rows)

    def _admit_looked_for(self, shard: ClaimedShard, rows: Rows) -> None:
        """Of a chat that may have had an answer already, so that its claim did not admit it."""
        if rows and shard.lane is Lane.EXPRESS and self.reuse.wants(shard):
            with contextlib.suppress(Unavailable):  # the engine asks by itself then
                self.admissions.at_once(rows)

    def leave(self, lease: Lease) -> None:
        """A claimed shard that is not begun goes back to the queue, without penalty."""
        for request in lease.shard.requests:
            lease.ended()
            lease.give_back(request.position)
        self.finish(lease)

    def finish(self, lease: Lease) -> dict[str, object]:
        """Wait for the end of a begun shard; what was given back goes to the queue."""
        lease.wait()
        if lease.returned and not lease.lost:
            self._release(lease)
        self._held.discard(lease)
        self._tell_room()  # of a lost lease no row tells it
        summary = lease.summary() | self._engine_figures(lease.shard.lane)
        log.info("shard.finished", batch=lease.shard.batch_id, **summary)
        return summary

    def _engine_figures(self, lane: Lane) -> dict[str, object]:
        """How the engine does at this moment; ages and times in seconds."""
        stats = self.engine.stats()
        return {
            "rows_per_step": round(stats.rows_per_step, 1),
            "padded_share": round(stats.padded_share, 3),
            "padded_share_keys": round(stats.padded_share_keys, 3),
            "kv_share": round(stats.kv_used / stats.kv_tokens, 3) if stats.kv_tokens else 0.0,
            "time_per_token": round(stats.time_per_token, 4),
            "queue_age": round(stats.oldest_waiting[lane.value], 2),
        }

    def on_done(self, outcome: EngineOutcome) -> None:
        """The engine's callback, on its thread."""
        self.admissions.forget(outcome.id)
        found = self._held.find(outcome.id)
        if found is None:
            self.reuse.left(outcome.id)
            return
        lease, position = found
        lease.ended()
        self._tell_room()
        if outcome.finish is FinishReason.CANCELLED:
            # A drain, a lost lease or the job's time: the database decides what becomes of it.
            lease.give_back(position)
            self.reuse.left(outcome.id)
            return
        if lease.shard.lane is Lane.BULK:
            self._pace.count()
        lease.measured(outcome.ttft, outcome.cached_tokens)
        asked = lease.asked_of(position)
        normalized = params.length_normalized(asked)
        stored = as_outcome(position, outcome, params.labels(asked), length_normalized=normalized)
        self.committer.put(lease, self.reuse.landed(outcome.id, stored))

    def on_admit(self, ids: Sequence[str]) -> AbstractSet[str]:
        """Make the admission durable before the engine runs these rows, so that a process that
        dies in the step leaves a trace on them. Raises `Unavailable`."""
        found = ((id, self._held.find(id)) for id in ids)
        return self.admissions.admit({id: row for id, row in found if row is not None})

    def lose(self, lease: Lease) -> None:
        """Another epoch owns the shard: drop its work between two steps."""
        ids = lease.open_ids()
        if lease.lose():
            with self._counting:
                self._lease_losses += 1
            log.warning("shard.lost", shard=lease.shard.id, epoch=lease.shard.epoch)
            self.abort(ids)

    def abort(self, ids: Sequence[str]) -> None:
        """Neither the engine nor an equal prompt is to answer these."""
        self.reuse.drop(ids)
        for request_id in ids:
            self.engine.cancel(request_id)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.begin() as conn:
                sql.release(conn, *lease.key)
            log.info("shard.released", shard=lease.shard.id, prompts=lease.returned)
        except Unavailable:
            log.warning("release.skipped", shard=lease.shard.id)  # its lease runs out by itself
