"""Equal prompts are computed once: one leads and the others follow, here and in later shards.

A flight begins with a prompt that nobody has answered. Equal ones that are claimed meanwhile follow
it, outside the engine and not admitted, so that no crash counts against them; they get a copy of
its outcome. It ends when that is stored, for from then on the table of answers has it. Knows leases
and that table; knows no engine, no codec and no Celery.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batching.requests import EngineRequest
from models.runner import ModelInfo
from penstock.errors import PromptError, Unavailable
from penstock.telemetry import get_logger
from storage import response_cache
from storage.database import Database
from storage.records import ClaimedShard, Outcome
from storage.states import Lane
from workers.digests import Digests
from workers.lease import Lease
from workers.outcomes import with_dropped
from workers.params import reusable

log = get_logger(__name__)

#: By position in their shard.
Requests = Mapping[int, EngineRequest]
#: Of one lane, so that a chat never waits for a job.
_Key = tuple[Lane, bytes]


@dataclass(frozen=True, slots=True)
class ReuseRules:
    """`ttl`: seconds that an answer is reused. `shared`: also across owners."""

    enabled: bool = True
    ttl: float = 86_400
    shared: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A prompt of a held shard."""

    lease: Lease
    position: int
    request: EngineRequest

    @property
    def late(self) -> bool:
        """Its job has no time left."""
        deadline = self.request.deadline
        return deadline is not None and deadline <= time.monotonic()


@dataclass(slots=True)
class _Flight:
    """`answer` is there from the leader's end until it is stored."""

    leader: Row
    followers: dict[str, Row] = field(default_factory=dict)
    answer: Outcome | None = None


class Reuse:
    """Safe to call from any thread. `answer` takes an outcome, `lead` hands a follower to the
    engine; both never block."""

    def __init__(
        self,
        *,
        database: Database,
        info: ModelInfo,
        rules: ReuseRules,
        answer: Callable[[Lease, Outcome], None],
        lead: Callable[[Row], None],
    ) -> None:
        self._database = database
        self._rules = rules
        self._digests = Digests(info, shared=rules.shared)
        self._answer = answer
        self._lead = lead
        self._lock = threading.Lock()
        self._flights: dict[_Key, _Flight] = {}
        self._leading: dict[str, _Key] = {}
        self._following: dict[str, _Key] = {}
        self._hits = self._misses = self._saved_tokens = 0

    def stats(self) -> dict[str, int]:
        """Since the start."""
        return {
            "cache_hits": self._hits,
            "cache_misses": self._misses,
            "saved_tokens": self._saved_tokens,
        }

    def wants(self, shard: ClaimedShard) -> bool:
        """May a chat have an answer already? Then it is not admitted before it is looked for."""
        return self._takes(shard) and reusable(shard.params)

    def _takes(self, shard: ClaimedShard) -> bool:
        """A suspect runs by itself, whatever is known; what the first schemas stored has no owner
        to keep it for."""
        return self._rules.enabled and not shard.alone and bool(shard.owner)

    # ---- a shard begins -------------------------------------------------------------------

    def begin(self, lease: Lease, ready: Requests) -> Requests:
        """Those that the engine has to answer. The others are answered, or will be."""
        if not self._takes(lease.shard):
            return ready
        digest_of = self._digests.of(lease.shard.owner)
        digests = {
            position: digest
            for position, one in ready.items()
            if (digest := digest_of(one, lease.asked_of(position))) is not None
        }
        if not digests:
            return ready
        leaders, landed = self._take_places(lease, ready, digests)
        for row, answer in landed:
            self._give([row], answer)
        for digest, answer in self._find(lease, leaders).items():
            self._land(leaders.pop(digest), (lease.shard.lane, digest), answer)
        with self._lock:
            self._misses += len(leaders)
        led = {row.position for row in leaders.values()}
        return {n: one for n, one in ready.items() if n not in digests or n in led}

    def _take_places(
        self, lease: Lease, ready: Requests, digests: Mapping[int, bytes]
    ) -> tuple[dict[bytes, Row], list[tuple[Row, Outcome]]]:
        """New leaders by digest, and rows whose answer is here; all others follow."""
        leaders: dict[bytes, Row] = {}
        landed: list[tuple[Row, Outcome]] = []
        with self._lock:
            for position, digest in digests.items():
                row, key = Row(lease, position, ready[position]), (lease.shard.lane, digest)
                flight = self._flights.get(key)
                if flight is None:
                    leaders[digest] = row
                    self._begin_flight(key, row)
                    continue
                lease.ended()  # the engine never has it
                if flight.answer is not None:
                    landed.append((row, flight.answer))
                else:
                    flight.followers[row.request.id] = row
                    self._following[row.request.id] = key
        return leaders, landed

    def _find(self, lease: Lease, leaders: Mapping[bytes, Row]) -> dict[bytes, Outcome]:
        """Earlier answers. What cannot be looked up is computed."""
        if not leaders:
            return {}
        owner = None if self._rules.shared else lease.shard.owner
        try:
            with self._database.begin() as conn:
                return response_cache.find(conn, leaders, ttl=self._rules.ttl, owner=owner)
        except Unavailable as error:
            log.warning("cache.skipped", shard=lease.shard.id, reason=error.message)
            return {}

    def _land(self, leader: Row, key: _Key, answer: Outcome) -> None:
        """An earlier answer was found for a leader, and for those who follow it by now."""
        with self._lock:
            dropped = self._leading.pop(leader.request.id, None) is None
            rows = [] if dropped else [leader, *self._end_flight(key)]
        leader.lease.ended()
        if dropped:  # meanwhile, and those who followed have another leader
            leader.lease.give_back(leader.position)
        self._give(rows, answer)

    # ---- the engine is done with one ------------------------------------------------------

    def landed(self, id: str, outcome: Outcome) -> Outcome:
        """The engine's outcome of a prompt, as it is to be stored; those that follow it get a
        copy. Where the fault may be the engine's own, the next one leads instead."""
        if outcome.error_code == PromptError.ENGINE:
            self._pass_on(id)
            return outcome
        with self._lock:
            key = self._leading.pop(id, None)
            if key is None:
                return outcome
            flight = self._flights[key]
            followers = self._end_flight(key)
            if outcome.error_code is None:
                flight.answer = outcome = replace(outcome, digest=key[1])
                self._flights[key] = flight  # until it is stored
        if followers:
            self._give(followers, outcome)
        return outcome

    def settled(self, lease: Lease, outcomes: Iterable[Outcome]) -> None:
        """These are stored, where all can find them, or were refused for good."""
        digests = [one.digest for one in outcomes if one.digest is not None]
        with self._lock:
            for digest in digests:
                self._flights.pop((lease.shard.lane, digest), None)

    def left(self, id: str) -> None:
        """The engine has dropped a prompt. Its job has no time left, and the next one leads; or
        the engine stops, and all who follow go back to the queue."""
        with self._lock:
            key = self._leading.get(id)
            stopping = key is not None and not self._flights[key].leader.late
        self._pass_on(id, stopping=stopping)

    def drop(self, ids: Iterable[str]) -> None:
        """These are not to be answered here any more: others lead where they led."""
        for id in ids:
            with self._lock:
                key = self._following.pop(id, None)
                row = None if key is None else self._flights[key].followers.pop(id)
            if row is not None:
                row.lease.give_back(row.position)
            else:
                self._pass_on(id)

    def _pass_on(self, id: str, *, stopping: bool = False) -> None:
        """The first follower that can leads now; those that cannot go back to the queue."""
        able: list[Row] = []
        unable: list[Row] = []
        with self._lock:
            key = self._leading.pop(id, None)
            if key is None:
                return
            for row in self._end_flight(key):
                if not row.lease.over:
                    (unable if stopping or row.late else able).append(row)
            if able:
                self._begin_flight(key, *able)
        for row in unable:
            row.lease.give_back(row.position)
        if able:
            able[0].lease.entered()
            self._lead(able[0])

    # ---- under the lock -------------------------------------------------------------------

    def _begin_flight(self, key: _Key, leader: Row, *followers: Row) -> None:
        self._flights[key] = _Flight(leader, {row.request.id: row for row in followers})
        self._leading[leader.request.id] = key
        self._following.update(dict.fromkeys((row.request.id for row in followers), key))

    def _end_flight(self, key: _Key) -> list[Row]:
        """Those who followed."""
        flight = self._flights.pop(key)
        followers, flight.followers = flight.followers, {}
        for id in followers:
            del self._following[id]
        return list(followers.values())

    def _give(self, rows: Sequence[Row], outcome: Outcome) -> None:
        """The outcome of an equal prompt. For a failure nothing was computed either. Turns that
        were left out there are no matter of these."""
        tokens = outcome.prompt_tokens + outcome.completion_tokens
        copy = replace(outcome, digest=None, from_cache=outcome.error_code is None)
        copy = with_dropped(copy, 0)
        if not copy.from_cache:
            copy = replace(copy, prompt_tokens=0, completion_tokens=0)
        else:
            with self._lock:
                self._hits += len(rows)
                self._saved_tokens += len(rows) * tokens
        for row in rows:
            self._answer(row.lease, replace(copy, position=row.position))
