"""Runs claimed shards: prompts to the engine, outcomes to the committer, the rest back in line.

Knows storage and the engine's seam; knows no Celery and no torch.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from batching.engine import Engine
from batching.requests import EngineOutcome, EngineRequest
from models.runner import Codec, FinishReason, ModelInfo, SamplingParams
from penstock.errors import PromptError, Unavailable
from penstock.telemetry import get_logger
from storage import leases as sql
from storage.database import Database
from storage.records import ClaimedRequest, ClaimedShard, Outcome, Params
from storage.states import Lane
from workers.committer import Committer
from workers.lease import Lease, Leases

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


def sampling_params(params: Params) -> SamplingParams:
    """Stored parameters as the engine takes them; unknown keys belong to other parts."""
    known = {name: params[name] for name in SamplingParams.__dataclass_fields__ if name in params}
    if isinstance(stop := known.get("stop"), list):
        known["stop"] = tuple(stop)
    return SamplingParams(**known)  # type: ignore[arg-type]  # written by our own schema


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
        claim_rows: Mapping[Lane, int],
    ) -> None:
        self._database = database
        self._codec = codec
        self._info = info
        self._identity = identity
        self._held = held
        self._claim_rows = claim_rows
        self._draining = threading.Event()
        self.engine: Engine
        self.committer: Committer

    def attach(self, engine: Engine, committer: Committer) -> None:
        """Both need this object's callbacks first, so they come after it."""
        self.engine, self.committer = engine, committer

    def drain(self) -> None:
        """Claim nothing more."""
        self._draining.set()

    def claim(self, lane: Lane, *, shard: int | None = None) -> list[Lease]:
        """Lease the next shard of a lane, or several small ones that together are no larger than
        a full one: a thousand jobs of one prompt each must not run one by one. Raises
        `Unavailable`."""
        if self._draining.is_set() or not self.engine.alive():
            return []
        claimed = self._claim(lane, 1, shard)
        if claimed and not claimed[0].alone:
            with contextlib.suppress(Unavailable):  # the first one is ours already
                rows = max(1, len(claimed[0].requests))
                if more := min(self._claim_rows[lane] // rows - 1, MAX_SHARDS - 1):
                    claimed += self._claim(lane, more, None)
        found = [Lease(one) for one in claimed]
        for lease in found:
            self._held.add(lease)
        return found

    def _claim(self, lane: Lane, limit: int, shard: int | None) -> list[ClaimedShard]:
        who = self._identity
        with self._database.begin() as conn:
            return sql.claim(
                conn,
                model=who.model,
                lane=lane,
                slot=who.slot,
                boot_id=who.boot_id,
                lease=who.lease_seconds,
                limit=limit,
                shard=shard,
            )

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
        sampling = sampling_params(shard.params)
        for request in shard.requests:
            prompt = self._encode(shard, request)
            if isinstance(prompt, Outcome):
                self.committer.put(lease, prompt)
                continue
            self.engine.submit(
                EngineRequest(
                    id=lease.request_id(request.position),
                    lane="express" if shard.lane is Lane.EXPRESS else "bulk",
                    prompt=prompt,
                    sampling=sampling,
                    alone=shard.alone,
                ),
                self.on_done,
            )

    def finish(self, lease: Lease) -> dict[str, object]:
        """Wait for the end of a begun shard; what was given back goes to the queue."""
        lease.wait()
        if lease.returned and not lease.lost:
            self._release(lease)
        self._held.discard(lease)
        summary = lease.summary()
        log.info("shard.finished", batch=lease.shard.batch_id, **summary)
        return summary

    def on_done(self, outcome: EngineOutcome) -> None:
        """The engine's callback, on its thread."""
        found = self._held.find(outcome.id)
        if found is None:
            return
        lease, position = found
        if outcome.finish is FinishReason.CANCELLED:
            # Only a drain or a lost lease cancels here; a job's cancellation is the database's.
            lease.give_back(position)
            return
        self.committer.put(lease, _as_outcome(position, outcome))

    def on_admit(self, ids: Sequence[str]) -> AbstractSet[str]:
        """Make the admission durable before the engine runs these rows, so that a process that
        dies in the step leaves a trace on them. Raises `Unavailable`."""
        positions: dict[Lease, list[int]] = defaultdict(list)
        for request_id in ids:
            if found := self._held.find(request_id):
                positions[found[0]].append(found[1])
        admitted: set[str] = set()
        lost: list[Lease] = []
        with self._database.begin() as conn:
            for lease in sorted(positions, key=lambda lease: lease.key):
                if sql.admit(conn, *lease.key, positions[lease]):
                    admitted.update(map(lease.request_id, positions[lease]))
                else:
                    lost.append(lease)
        for lease in lost:
            self.lose(lease)
        return admitted

    def lose(self, lease: Lease) -> None:
        """Another epoch owns the shard: drop its work between two steps."""
        ids = lease.open_ids()
        if lease.lose():
            log.warning("shard.lost", shard=lease.shard.id, epoch=lease.shard.epoch)
            self.abort(ids)

    def abort(self, ids: Sequence[str]) -> None:
        for request_id in ids:
            self.engine.cancel(request_id)

    def _encode(self, shard: ClaimedShard, request: ClaimedRequest) -> tuple[int, ...] | Outcome:
        messages = request.messages
        if shard.system and messages[0][0] != "system":
            messages = (("system", shard.system), *messages)
        try:
            prompt = self._codec.encode_chat(messages)
        except Exception as error:  # a model's template may refuse a conversation
            log.warning("prompt.refused", shard=shard.id, error=type(error).__name__)
            return _refused(
                request.position,
                PromptError.INVALID_MESSAGE,
                "The model's chat template refused it.",
            )
        if len(prompt) >= self._info.context:
            return _refused(
                request.position,
                PromptError.TOO_LONG,
                f"The prompt has {len(prompt)} tokens; the model's context of {self._info.context} "
                "has to hold it and the answer.",
            )
        return prompt

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.begin() as conn:
                sql.release(conn, *lease.key)
            log.info("shard.released", shard=lease.shard.id, prompts=lease.returned)
        except Unavailable:
            log.warning("release.skipped", shard=lease.shard.id)  # its lease runs out by itself


def _as_outcome(position: int, outcome: EngineOutcome) -> Outcome:
    return Outcome(
        position=position,
        text=outcome.text if outcome.error is None else None,
        finish_reason=outcome.finish.value if outcome.error is None else None,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        error_code=outcome.error.value if outcome.error else None,
        error_message=outcome.message,
    )


def _refused(position: int, code: PromptError, message: str) -> Outcome:
    return Outcome(
        position=position,
        text=None,
        finish_reason=None,
        prompt_tokens=0,
        completion_tokens=0,
        error_code=code.value,
        error_message=message,
    )
