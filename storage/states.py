"""Every state and every legal transition. The SQL of this package carries them out; the tests try
all others in vain."""

from __future__ import annotations

from enum import StrEnum


class BatchStatus(StrEnum):
    """OpenAI's eight statuses."""

    VALIDATING = "validating"  #: being read
    QUEUED = "queued"  #: stored, nothing claimed yet
    IN_PROGRESS = "in_progress"  #: a shard was claimed
    FINALIZING = "finalizing"  #: every prompt has an outcome, or its time ran out
    CANCELLING = "cancelling"  #: asked to stop; open prompts are being closed
    COMPLETED = "completed"
    FAILED = "failed"  #: not one prompt succeeded
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ShardState(StrEnum):
    READY = "ready"  #: may be claimed
    LEASED = "leased"  #: a worker has it, under an epoch
    DONE = "done"
    CANCELLED = "cancelled"


class RequestState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"  #: admitted by an engine
    DONE = "done"
    FAILED = "failed"


class Lane(StrEnum):
    BULK = "bulk"  #: jobs
    EXPRESS = "express"  #: chats: a batch of one, admitted at once


class DeliveryState(StrEnum):
    """Of one webhook event on its way to one receiver."""

    PENDING = "pending"  #: its next attempt is due at `next_at`
    DELIVERING = "delivering"  #: a sender has it, under an epoch
    DELIVERED = "delivered"  #: the receiver answered 2xx
    DEAD = "dead"  #: three days of attempts were in vain, or the receiver is gone


TERMINAL_BATCH = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELLED, BatchStatus.EXPIRED}
)

#: `retry_failed`, an explicit act of the owner, is the only way out of a terminal status.
BATCH_TRANSITIONS: dict[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.VALIDATING: frozenset(
        {BatchStatus.QUEUED, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
    ),
    BatchStatus.QUEUED: frozenset(
        {BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
    ),
    BatchStatus.IN_PROGRESS: frozenset({BatchStatus.FINALIZING, BatchStatus.CANCELLING}),
    BatchStatus.FINALIZING: frozenset(
        {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED}
    ),
    BatchStatus.CANCELLING: frozenset({BatchStatus.CANCELLED}),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
    BatchStatus.EXPIRED: frozenset(),
}

SHARD_TRANSITIONS: dict[ShardState, frozenset[ShardState]] = {
    ShardState.READY: frozenset({ShardState.LEASED, ShardState.CANCELLED}),
    ShardState.LEASED: frozenset({ShardState.READY, ShardState.DONE, ShardState.CANCELLED}),
    ShardState.DONE: frozenset(),
    ShardState.CANCELLED: frozenset(),
}

REQUEST_TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    # Done at once: an equal prompt has an answer already.
    RequestState.PENDING: frozenset({RequestState.RUNNING, RequestState.DONE, RequestState.FAILED}),
    RequestState.RUNNING: frozenset({RequestState.PENDING, RequestState.DONE, RequestState.FAILED}),
    RequestState.DONE: frozenset(),
    RequestState.FAILED: frozenset(),
}

DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERING}),
    DeliveryState.DELIVERING: frozenset(
        {DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.DEAD}
    ),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.DEAD: frozenset(),
}
