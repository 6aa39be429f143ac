"""A job into the database: batch, shards and requests in the caller's transaction, by COPY.

Memory does not grow with the number of prompts. Knows nothing of what a prompt means: the caller
says which cannot run, and they get their failed outcome here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy import Connection, insert, literal, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from penstock.errors import PromptError, Unavailable
from storage.copying import copy_rows, field, null
from storage.reading import batch_columns, batch_record
from storage.records import Batch, NewBatch, NewPrompt
from storage.states import BatchStatus, RequestState, ShardState
from storage.tables import SHARD_SIZE, batches, shards
from storage.text import all_storable, require_storable, storable

#: Shards of one COPY. Only a failed prompt's reason is kept until its end.
_SHARDS_PER_COPY = 128

_REQUESTS = "requests (batch_id, position, shard_id, state, messages)"
_RESULTS = "results (batch_id, position, error_code, error_message)"
_SHARD_IDS = text("SELECT nextval('shards_id_seq') FROM generate_series(1, :count)")
_ACCEPT = text("""
    UPDATE batches SET total = :total, failed = :failed, status = :status
    WHERE id = :id AND status = 'validating'
""")


class IdempotentReplay(Exception):
    """Raised when the owner's key is taken: `batch` is what it was first used for."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.id)
        self.batch = batch


@dataclass(frozen=True, slots=True)
class _Failure:
    position: int
    code: str
    message: str | None


def find_idempotent(conn: Connection, owner: str, key: str) -> Batch | None:
    """The batch that this owner stored under this Idempotency-Key."""
    row = conn.execute(
        select(*batch_columns()).where(batches.c.owner == owner, batches.c.idempotency_key == key)
    ).one_or_none()
    return None if row is None else batch_record(row)


def create_batch(conn: Connection, batch: NewBatch, prompts: Iterable[NewPrompt]) -> Batch:
    """Store a job with its prompts. Errors of the iterable come through as they are.

    Raises `IdempotentReplay` when the key is taken; a concurrent post of the same key waits for
    the first one's commit, and then gets that. Raises `InvalidRequest` for text of the job itself
    that cannot be stored.
    """
    require_storable(
        owner=batch.owner,
        model=batch.model,
        system=batch.system,
        metadata=batch.metadata,
        idempotency_key=batch.idempotency_key,
        **batch.params,
    )
    # 1. The batch claims its idempotency key.
    _insert_batch(conn, batch)
    # 2. Requests and shards, chunk by chunk, as the iterable gives them.
    total = failed = 0
    numbered = enumerate(prompts)
    while (first := next(numbered, None)) is not None:
        chunk = chain((first,), islice(numbered, _SHARDS_PER_COPY * SHARD_SIZE - 1))
        copied, unfit = _store_chunk(conn, batch, first[0], chunk)
        total += copied
        failed += unfit
    # 3. Only now it is a job. One without a runnable prompt is ready to be finalized.
    status = BatchStatus.QUEUED if failed < total else BatchStatus.FINALIZING
    conn.execute(_ACCEPT, {"id": batch.id, "total": total, "failed": failed, "status": status})
    return batch_record(
        conn.execute(select(*batch_columns()).where(batches.c.id == batch.id)).one()
    )


def _insert_batch(conn: Connection, batch: NewBatch) -> None:
    values = {
        "id": batch.id,
        "owner": batch.owner,
        "kind": batch.kind,
        "model": batch.model,
        "lane": batch.lane,
        "status": BatchStatus.VALIDATING,
        "priority": batch.priority,
        "params": dict(batch.params),
        "system": batch.system,
        "metadata": dict(batch.metadata),
        "idempotency_key": batch.idempotency_key,
        "body_hash": batch.body_hash,
    }
    if batch.expires_in is not None:
        values["expires_at"] = text("now() + make_interval(secs => :secs)").bindparams(
            secs=batch.expires_in
        )
    statement = upsert(batches).values(values)
    if batch.idempotency_key is not None:
        statement = statement.on_conflict_do_nothing(index_elements=["owner", "idempotency_key"])
    stored = conn.execute(statement.returning(literal(1))).one_or_none()
    if stored is None and batch.idempotency_key is not None:
        earlier = find_idempotent(conn, batch.owner, batch.idempotency_key)
        if earlier is None:
            raise Unavailable("The job of this Idempotency-Key was deleted just now. Try again.")
        raise IdempotentReplay(earlier)


def _store_chunk(
    conn: Connection, batch: NewBatch, start: int, prompts: Iterator[tuple[int, NewPrompt]]
) -> tuple[int, int]:
    """Copy the prompts; returns how many there were, and how many of them cannot run."""
    ids = list(conn.execute(_SHARD_IDS, {"count": _SHARDS_PER_COPY}).scalars())
    sizes = [0] * len(ids)
    open_requests = [0] * len(ids)
    failures: list[_Failure] = []

    def lines() -> Iterator[str]:
        for position, prompt in prompts:
            shard = (position - start) // SHARD_SIZE
            sizes[shard] += 1
            encoded, failure = _encode(position, prompt)
            if failure is None:
                open_requests[shard] += 1
                state = RequestState.PENDING
            else:
                failures.append(failure)
                state = RequestState.FAILED
            yield f"{batch.id}\t{position}\t{ids[shard]}\t{state}\t{encoded}\n"

    copy_rows(conn, _REQUESTS, lines())
    used = [index for index, size in enumerate(sizes) if size]
    conn.execute(
        insert(shards),
        [
            {
                "id": ids[index],
                "batch_id": batch.id,
                "model": batch.model,
                "lane": batch.lane,
                "priority": batch.priority,
                "state": ShardState.READY if open_requests[index] else ShardState.DONE,
                "remaining": open_requests[index],
            }
            for index in used
        ],
    )
    if failures:
        copy_rows(conn, _RESULTS, (_failure_line(batch.id, failure) for failure in failures))
    return sum(sizes), len(failures)


def _encode(position: int, prompt: NewPrompt) -> tuple[str, _Failure | None]:
    """The messages as a COPY field, null and a reason where there is none that can be stored."""
    if prompt.messages is None:
        code = prompt.error_code or PromptError.INVALID_MESSAGE
        return null(), _Failure(position, code, storable(prompt.error_message))
    if not all_storable(prompt.messages):
        message = "The prompt has a NUL character or half of a surrogate pair."
        return null(), _Failure(position, PromptError.INVALID_TEXT, message)
    return field(json.dumps(prompt.messages, ensure_ascii=False, separators=(",", ":"))), None


def _failure_line(batch_id: str, failure: _Failure) -> str:
    message = null() if failure.message is None else field(failure.message)
    return f"{batch_id}\t{failure.position}\t{field(failure.code)}\t{message}\n"
