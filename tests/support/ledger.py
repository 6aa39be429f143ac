"""The four tables of the queue as they stand, and what must hold of them at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select

from penstock.errors import PromptError
from storage import tables
from storage.reclaim import CRASHES_TO_CONDEMN, CRASHES_TO_ISOLATE
from storage.states import (
    BATCH_TRANSITIONS,
    REQUEST_TRANSITIONS,
    SHARD_TRANSITIONS,
    TERMINAL_BATCH,
    BatchStatus,
    RequestState,
    ShardState,
)

S = TypeVar("S", bound=StrEnum)
Key = tuple[str, int]
OPEN_REQUEST = (RequestState.PENDING, RequestState.RUNNING)
OPEN_SHARD = (ShardState.READY, ShardState.LEASED)


@dataclass(frozen=True)
class Ledger:
    """One consistent look at the queue."""

    batches: Mapping[str, Row[Any]]
    shards: Mapping[int, Row[Any]]
    requests: Mapping[Key, Row[Any]]
    results: Mapping[Key, Row[Any]]


def read_ledger(conn: Connection) -> Ledger:
    """By key, so that the same history reads the same every time."""
    request, result = tables.requests.c, tables.results.c
    columns = [column for column in request if column is not request.messages]
    batches = select(tables.batches).order_by(tables.batches.c.id)
    shards = select(tables.shards).order_by(tables.shards.c.id)
    requests = select(*columns).order_by(request.batch_id, request.position)
    results = select(tables.results).order_by(result.batch_id, result.position)
    return Ledger(
        batches={row.id: row for row in conn.execute(batches)},
        shards={row.id: row for row in conn.execute(shards)},
        requests={(row.batch_id, row.position): row for row in conn.execute(requests)},
        results={(row.batch_id, row.position): row for row in conn.execute(results)},
    )


def check_consistent(ledger: Ledger) -> None:
    """Counters equal the rows, and the rows agree with each other."""
    _check_outcomes(ledger)
    _check_batches(ledger)
    _check_shards(ledger)
    for key, row in ledger.requests.items():
        _check_bounds(row, ledger.shards[row.shard_id], ledger.results.get(key))


def check_step(before: Ledger, after: Ledger) -> None:
    """Every change is one legal transition, and nothing final changed."""
    for key, result in before.results.items():
        assert after.results[key] == result, "a stored outcome changed"
    for batch_id, batch in before.batches.items():
        now = after.batches[batch_id]
        if batch.status in TERMINAL_BATCH:
            assert now == batch, "a finished batch changed"
        _check_move(BATCH_TRANSITIONS, BatchStatus(batch.status), BatchStatus(now.status))
    for shard_id, shard in before.shards.items():
        moved = after.shards[shard_id]
        _check_move(SHARD_TRANSITIONS, ShardState(shard.state), ShardState(moved.state))
        assert moved.epoch >= shard.epoch
        if shard.state not in OPEN_SHARD:
            assert moved == shard, "a closed shard changed"
    for key, request in before.requests.items():
        new = after.requests[key]
        _check_move(REQUEST_TRANSITIONS, RequestState(request.state), RequestState(new.state))
        if (request.state, new.state) == (RequestState.PENDING, RequestState.DONE):
            assert after.results[key].from_cache, "an answer of nobody"
        if request.state not in OPEN_REQUEST:
            assert new == request, "a finished request changed"


def check_finished(ledger: Ledger) -> None:
    """Every job has ended, and every prompt has exactly one outcome."""
    assert all(batch.status in TERMINAL_BATCH for batch in ledger.batches.values())
    assert ledger.results.keys() == ledger.requests.keys()
    assert all(batch.finished_at is not None for batch in ledger.batches.values())


def _check_move(table: Mapping[S, frozenset[S]], old: S, new: S) -> None:
    assert new == old or new in table[old], f"{old} became {new}"


def _check_outcomes(ledger: Ledger) -> None:
    for key, request in ledger.requests.items():
        result = ledger.results.get(key)
        if request.state in OPEN_REQUEST:
            assert result is None, "an open request has an outcome"
        else:
            assert result is not None, "a finished request has no outcome"
            assert (result.error_code is None) == (request.state == RequestState.DONE)


def _check_batches(ledger: Ledger) -> None:
    total = Counter(batch_id for batch_id, _ in ledger.requests)
    completed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for (batch_id, _), result in ledger.results.items():
        (completed if result.error_code is None else failed)[batch_id] += 1
        tokens[batch_id, "in"] += result.prompt_tokens
        tokens[batch_id, "out"] += result.completion_tokens
        if result.from_cache:
            tokens[batch_id, "saved"] += result.prompt_tokens + result.completion_tokens
    for batch_id, batch in ledger.batches.items():
        assert batch.total == total[batch_id]
        assert (batch.completed, batch.failed) == (completed[batch_id], failed[batch_id])
        assert batch.prompt_tokens == tokens[batch_id, "in"]
        assert batch.completion_tokens == tokens[batch_id, "out"]
        assert batch.saved_tokens == tokens[batch_id, "saved"]
        if batch.status in TERMINAL_BATCH:
            assert batch.completed + batch.failed == batch.total


def _check_shards(ledger: Ledger) -> None:
    open_requests: Counter[int] = Counter()
    for request in ledger.requests.values():
        open_requests[request.shard_id] += request.state in OPEN_REQUEST
    for shard_id, shard in ledger.shards.items():
        assert shard.remaining == open_requests[shard_id]
        assert shard.remaining <= (1 if shard.alone else tables.SHARD_SIZE)
        assert (shard.state in OPEN_SHARD) == (shard.remaining > 0)
        assert shard.state != ShardState.READY or shard.slot is None


def _check_bounds(request: Row[Any], shard: Row[Any], result: Row[Any] | None) -> None:
    if request.state == RequestState.RUNNING:
        assert shard.state == ShardState.LEASED
        assert request.attempts >= 1
    assert request.attempts >= request.crashes >= request.crashes_alone >= 0
    assert request.crashes - request.crashes_alone <= CRASHES_TO_ISOLATE
    assert request.crashes_alone <= CRASHES_TO_CONDEMN
    poison = result is not None and result.error_code == PromptError.POISON
    assert poison == (request.crashes_alone == CRASHES_TO_CONDEMN)
