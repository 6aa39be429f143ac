"""Puts parsed work into storage and wakes a worker: jobs and chats alike.

Knows storage and the queue's names; knows no HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from anyio import from_thread
from sqlalchemy import Connection

from api.config import ApiConfig
from api.current import current
from api.dependencies import Parts
from penstock.errors import (
    IdempotencyMismatch,
    ModelNotFound,
    NotFound,
    PenstockError,
    Unavailable,
)
from penstock.telemetry import get_logger
from storage import fleet, orders, quota, reading
from storage.intake import IdempotentReplay, create_batch, find_idempotent
from storage.quota import Amount, Limits
from storage.records import Batch, NewBatch, NewPrompt
from storage.states import Lane

log = get_logger(__name__)


Create = Callable[[Connection], Batch]


@dataclass(frozen=True, slots=True)
class Stored:
    """The batch of a post; `replayed` when an earlier post with the same key made it."""

    batch: Batch
    replayed: bool


def body_hash(body: bytes | bytearray) -> str:
    return hashlib.sha256(body).hexdigest()


def resolve_model(conn: Connection, asked: str | None, config: ApiConfig) -> str:
    """A configured model, which needs no live worker, or one that a live worker serves; where none
    is named, the configured one, or that which a worker was ordered to load instead."""
    if asked is None:
        ordered = orders.ordered_instead(conn, config.model) if config.choices else None
        return ordered if ordered in config.choices else config.model
    if asked in config.models:
        return asked
    served = {worker.model for worker in fleet.workers(conn)}
    if asked in served:
        return asked
    names = ", ".join(sorted(served | config.models))
    raise ModelNotFound(f"There is no such model; served: {names}.", param="model")


def resolve_chat_model(conn: Connection, asked: str | None, config: ApiConfig) -> str:
    """The same for a chat, which does not wait for a model that nobody is about to load. Raises
    `Unavailable`."""
    model = resolve_model(conn, asked, config)
    if config.choices and orders.is_abandoned(conn, model):
        raise Unavailable(f"No worker serves {model} now; it has to be loaded first.")
    return model


def create_within_limits(
    conn: Connection,
    limits: Mapping[Lane, Limits],
    batch: NewBatch,
    prompts: Iterable[NewPrompt],
    count: int,
) -> Batch:
    """Store `count` prompts where there is room for them; else raises `LimitReached`, `Overloaded`
    or `TooLarge`. A repeated post of a stored job is no new one, however full the queue is."""
    own = limits.get(batch.lane)
    if own is None:
        return create_batch(conn, batch, prompts)
    try:
        quota.check(conn, own, batch.owner, batch.lane, Amount(1, count, 0))
    except PenstockError:
        key = batch.idempotency_key
        if key is not None and (earlier := find_idempotent(conn, batch.owner, key)):
            raise IdempotentReplay(earlier) from None
        raise
    stored = create_batch(conn, batch, prompts)
    quota.settle(conn, own, batch.owner, batch.lane)
    return stored


async def store(parts: Parts, create: Create, digest: str | None) -> Stored:
    """Run `create` in one transaction, then wake a worker; or find what its key made before."""
    try:
        batch = await parts.offload.store(lambda conn: _charged(parts, create(conn), conn))
    except IdempotentReplay as replay:
        if replay.batch.body_hash != digest:
            raise IdempotencyMismatch(param="Idempotency-Key") from None
        return Stored(replay.batch, replayed=True)
    parts.wake_ups.send(batch.model, batch.lane.value)
    parts.metrics.count_accepted(batch.model, batch.total)
    log.info("batch.accepted", batch=batch.id, kind=batch.kind, total=batch.total)
    return Stored(batch, replayed=False)


def _charged(parts: Parts, batch: Batch, conn: Connection) -> Batch:
    """A chat's tokens count before it is committed. Raises `LimitReached`."""
    noted = current()
    if batch.lane is Lane.EXPRESS and noted.rates.tokens is not None:
        cost = reading.token_estimate(conn, batch.id)
        charge = parts.rates.charge
        from_thread.run(charge, noted.owner, "tokens", noted.rates.tokens, cost)
    return batch


async def load(parts: Parts, owner: str, batch_id: str) -> Batch:
    """The owner's batch. Raises `NotFound`."""
    batch = await parts.offload.read(lambda conn: reading.get_batch(conn, owner, batch_id))
    if batch is None:
        raise NotFound("There is no job under this id.")
    return batch


def headers_of(stored: Stored) -> dict[str, str]:
    """Where the job is, and whether this post made it."""
    replayed = {"Idempotent-Replayed": "true"} if stored.replayed else {}
    return {"Location": f"/batch-result/{stored.batch.id}", **replayed}
