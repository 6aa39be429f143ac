"""A job into the database: batch, shards and requests in the caller's transaction, by COPY.

Memory does not grow with the number of prompts. Knows nothing of what a prompt means: the caller
says which cannot run, and they get their failed outcome here. Neighboring shards hold prompts of
like lengths, so that micro-batches cut from a few are padded little, and each short and long ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from math import isqrt

from sqlalchemy import Connection, exc, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from penstock.errors import Conflict, PromptError, Unavailable
from storage import endpoints
from storage.copying import copy_rows, field, null
from storage.database import sqlstate
from storage.reading import batch_columns, batch_record
from storage.records import Batch, NewBatch, NewPrompt
from storage.states import BatchStatus, RequestState, ShardState
from storage.tables import AGING, SHARD_SIZE, batches, shards
from storage.text import all_storable, require_storable, storable

#: Prompts of one COPY, which are sorted by length together, and about the most bytes of them.
_COPY_PROMPTS = 128 * SHARD_SIZE
_COPY_BYTES = 16 << 20
#: Of a lock, or of the statement that waits for it.
_TIMEOUTS = ("55P03", "57014")
_STRETCHES = 4  #: of like length in a shard

_REQUESTS = "requests (batch_id, position, shard_id, state, messages, params, custom_id)"
_RESULTS = "results (batch_id, position, error_code, error_message)"
_NOTHING_OWN = f"{null()}\t{null()}"
_SHARD_IDS = text("SELECT nextval('shards_id_seq') FROM generate_series(1, :count)")
_ACCEPT = text("""
    UPDATE batches
    SET total = :total, failed = :failed, bytes = :bytes, status = :status, model = :model,
        ending_at = CASE WHEN CAST(:status AS text) = 'finalizing' THEN clock_timestamp() END
    WHERE id = :id AND status = 'validating'
""")


class IdempotentReplay(Exception):
    """Raised when the owner's key is taken: `batch` is what it was first used for."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.id)
        self.batch = batch


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A prompt as COPY fields, without messages where it cannot run, but with the reason."""

    position: int
    messages: str
    own: str  #: its own parameters and name
    code: str | None = None
    reason: str | None = None
    bytes: int = 0  #: 0 where it cannot run


def find_idempotent(conn: Connection, owner: str, key: str) -> Batch | None:
    """The batch that this owner stored under this Idempotency-Key."""
    row = conn.execute(
        select(*batch_columns()).where(batches.c.owner == owner, batches.c.idempotency_key == key)
    ).one_or_none()
    return None if row is None else batch_record(row)


def create_batch(conn: Connection, batch: NewBatch, prompts: Iterable[NewPrompt]) -> Batch:
    """Store a job with its prompts. Errors of the iterable come through as they are.

    Raises `IdempotentReplay` when the key is taken; a concurrent post of the same key waits for
    the first one's commit, and then gets that, or `Conflict` when that took too long. Raises
    `InvalidRequest` for text of the job itself that cannot be stored.
    """
    open_batch(conn, batch)
    return fill(conn, batch, prompts)


def open_batch(conn: Connection, batch: NewBatch) -> None:
    """Store a job that has no prompts yet; raises as `create_batch` does."""
    require_storable(
        owner=batch.owner,
        model=batch.model,
        system=batch.system,
        metadata=batch.metadata,
        callback_url=batch.callback_url,
        idempotency_key=batch.idempotency_key,
        **batch.params,
    )
    _insert_batch(conn, batch)
    if batch.callback_url is not None:
        endpoints.ensure_callbacks(conn, batch.owner)


def fill(conn: Connection, batch: NewBatch | Batch, prompts: Iterable[NewPrompt]) -> Batch:
    """Store the prompts of a job that was opened; to be rolled back where it raises. Raises
    `Conflict` when the job was cancelled meanwhile."""
    # 1. Requests and shards, chunk by chunk, as the iterable gives them.
    total = failed = size = 0
    for chunk in _chunks(prompts):
        total += len(chunk)
        size += sum(prompt.bytes for prompt in chunk)
        failed += _store_chunk(conn, batch, chunk)
    # 2. Only now it is a job. One without a runnable prompt is ready to be finalized.
    status = BatchStatus.QUEUED if failed < total else BatchStatus.FINALIZING
    counted = {"total": total, "failed": failed, "bytes": size}
    facts = {"id": batch.id, "model": batch.model, "status": status, **counted}
    if not conn.execute(_ACCEPT, facts).rowcount:
        raise Conflict("The job was cancelled before all of it was stored.")
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
        "callback_url": batch.callback_url,
    }
    if batch.expires_in is not None:
        values["expires_in"] = batch.expires_in
        values["expires_at"] = text("now() + make_interval(secs => :secs)").bindparams(
            secs=batch.expires_in
        )
    statement = upsert(batches).values(values)
    if batch.idempotency_key is not None:
        statement = statement.on_conflict_do_nothing(index_elements=["owner", "idempotency_key"])
    try:
        stored = conn.execute(statement.returning(literal(1))).one_or_none()
    except exc.OperationalError as error:
        # One row alone waits for nothing but for the post that has the key and goes on.
        if batch.idempotency_key is not None and sqlstate(error) in _TIMEOUTS:
            raise Conflict(
                "A post with this Idempotency-Key is still running.", param="Idempotency-Key"
            ) from error
        raise
    if stored is None and batch.idempotency_key is not None:
        earlier = find_idempotent(conn, batch.owner, batch.idempotency_key)
        if earlier is None:
            raise Unavailable("The job of this Idempotency-Key was deleted just now. Try again.")
        raise IdempotentReplay(earlier)


def _chunks(prompts: Iterable[NewPrompt]) -> Iterator[list[_Encoded]]:
    chunk: list[_Encoded] = []
    size = 0
    for position, prompt in enumerate(prompts):
        chunk.append(_encode(position, prompt))
        size += len(chunk[-1].messages) + len(chunk[-1].own)
        if len(chunk) == _COPY_PROMPTS or size >= _COPY_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _store_chunk(conn: Connection, batch: NewBatch | Batch, chunk: list[_Encoded]) -> int:
    """Copy the prompts; returns how many of them cannot run."""
    unfit = [prompt for prompt in chunk if prompt.code is not None]
    fit = [prompt for prompt in chunk if prompt.code is None]
    fit.sort(key=lambda prompt: len(prompt.messages))
    ordered = fit + unfit  # the unfit need a shard, too, but no place among like lengths
    shares = _evenly_paced(_shares(ordered))
    ids = list(conn.execute(_SHARD_IDS, {"count": len(shares)}).scalars())
    copy_rows(conn, _REQUESTS, _request_lines(batch.id, zip(ids, shares, strict=True)))
    open_requests = [sum(prompt.code is None for prompt in share) for share in shares]
    due_at = func.now() - timedelta(seconds=AGING * batch.priority)
    conn.execute(
        insert(shards).values(due_at=due_at),
        [
            {
                "id": shard_id,
                "batch_id": batch.id,
                "model": batch.model,
                "lane": batch.lane,
                "priority": batch.priority,
                "owner": batch.owner,
                "state": ShardState.READY if remaining else ShardState.DONE,
                "remaining": remaining,
            }
            for shard_id, remaining in zip(ids, open_requests, strict=True)
        ],
    )
    if unfit:
        copy_rows(conn, _RESULTS, (_failure_line(batch.id, prompt) for prompt in unfit))
    return len(unfit)


def _shares(ordered: list[_Encoded]) -> list[list[_Encoded]]:
    """Each has a stretch from every part of the order: all lengths, and many of each alike."""
    size = SHARD_SIZE // _STRETCHES
    stretches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    count = -(-len(stretches) // _STRETCHES)
    return [list(chain.from_iterable(stretches[n::count])) for n in range(count)]


def _evenly_paced(shares: list[list[_Encoded]]) -> list[list[_Encoded]]:
    """From the shortest to the longest, as several sweeps up and down: neighbors stay alike, and a
    job's pace so far tells how long the rest will take."""
    sweeps = max(1, isqrt(len(shares)) // 2)
    ordered: list[list[_Encoded]] = []
    for sweep in range(sweeps):
        part = shares[sweep::sweeps]
        ordered += part[::-1] if sweep % 2 else part
    return ordered


def _request_lines(batch_id: str, shares: Iterable[tuple[int, list[_Encoded]]]) -> Iterator[str]:
    for shard_id, share in shares:
        for prompt in share:
            state = RequestState.PENDING if prompt.code is None else RequestState.FAILED
            of_shard = f"{batch_id}\t{prompt.position}\t{shard_id}\t{state}"
            yield f"{of_shard}\t{prompt.messages}\t{prompt.own}\n"


def _encode(position: int, prompt: NewPrompt) -> _Encoded:
    if prompt.messages is None:
        code = prompt.error_code or PromptError.INVALID_MESSAGE
        name = _field(storable(prompt.custom_id))
        reason = storable(prompt.error_message)
        return _Encoded(position, null(), f"{null()}\t{name}", code, reason)
    if not all_storable((prompt.messages, prompt.params or {}, prompt.custom_id)):
        reason = "The prompt has a NUL character or half of a surrogate pair."
        return _Encoded(position, null(), _NOTHING_OWN, PromptError.INVALID_TEXT, reason)
    text = _json(prompt.messages)
    size = len(text) if text.isascii() else len(text.encode())
    if prompt.params is None and prompt.custom_id is None:
        return _Encoded(position, field(text), _NOTHING_OWN, bytes=size)
    params = None if prompt.params is None else _json(prompt.params)
    own = f"{_field(params)}\t{_field(prompt.custom_id)}"
    return _Encoded(position, field(text), own, bytes=size)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _field(value: str | None) -> str:
    return null() if value is None else field(value)


def _failure_line(batch_id: str, prompt: _Encoded) -> str:
    return f"{batch_id}\t{prompt.position}\t{field(prompt.code or '')}\t{_field(prompt.reason)}\n"
