"""Batches as OpenAI's clients know them: a job whose prompts are the lines of a file, read after it
was accepted. All their own SQL but the outcomes'. Knows no blob, and nothing of what is in a line.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from penstock.errors import InvalidRequest, LimitReached, NotFound, Overloaded
from storage import files, intake, lifecycle
from storage.intake import IdempotentReplay
from storage.reading import batch_columns, batch_record
from storage.records import Batch, NewBatch
from storage.service_tables import openai_batches
from storage.states import BatchStatus
from storage.tables import batches

#: Batches whose files wait to be read: of one owner, and of all.
MAX_UNREAD_OF_OWNER = 100
MAX_UNREAD = 1_000

_COUNT_UNREAD = text("""
    SELECT count(*) AS total, count(*) FILTER (WHERE owner = :owner) AS own
    FROM (SELECT owner FROM openai_batches WHERE read_at IS NULL LIMIT :most) unread
""")
_INSERT = text("""
    INSERT INTO openai_batches (batch_id, owner, endpoint, completion_window, quarantine,
                                output_lifetime, input_file_id, output_file_id, error_file_id)
    VALUES (:batch_id, :owner, :endpoint, :completion_window, :quarantine,
            :output_lifetime, :input_file_id, :output_file_id, :error_file_id)
""")
# The job's own row stays free, so that it can be cancelled meanwhile.
_LOCK_NEXT_UNREAD = text("""
    SELECT batch_id FROM openai_batches WHERE read_at IS NULL
    ORDER BY batch_id LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_LOCK_UNREAD = text("""
    SELECT batch_id FROM openai_batches WHERE batch_id = :id AND read_at IS NULL FOR UPDATE
""")
_READ = text("""
    UPDATE openai_batches SET read_at = clock_timestamp(), errors = :errors WHERE batch_id = :id
""").bindparams(bindparam("errors", type_=JSONB(none_as_null=True)))
_ADD_FILES = text("""
    INSERT INTO files (id, owner, purpose, filename, batch_id)
    SELECT file.id, o.owner, 'batch_output', o.batch_id || file.ending, o.batch_id
    FROM openai_batches o CROSS JOIN LATERAL (
        VALUES (o.output_file_id, '_output.jsonl'), (o.error_file_id, '_error.jsonl')
    ) file (id, ending)
    WHERE o.batch_id = :id
""")
_REJECT = text("""
    UPDATE batches SET status = 'finalizing', ending_at = clock_timestamp()
    WHERE id = :id AND status = 'validating'
""")
_NEXT_UNCOUNTED = text("""
    SELECT f.id, f.batch_id FROM files f JOIN batches b ON b.id = f.batch_id
    WHERE f.bytes IS NULL AND b.finished_at IS NOT NULL
    ORDER BY f.batch_id LIMIT 1 FOR NO KEY UPDATE OF f SKIP LOCKED
""")
# Ordered, so that PostgreSQL takes the partial indexes whatever it believes of the tables.
_ANY_WAITING = text("""
    SELECT (
        SELECT batch_id FROM openai_batches WHERE read_at IS NULL ORDER BY batch_id LIMIT 1
    ) IS NOT NULL OR (
        SELECT f.batch_id FROM files f JOIN batches b ON b.id = f.batch_id
        WHERE f.bytes IS NULL AND b.finished_at IS NOT NULL
        ORDER BY f.batch_id LIMIT 1
    ) IS NOT NULL
""")
_COUNTED = text("""
    UPDATE files f
    SET bytes = :bytes,
        expires_at = b.finished_at + make_interval(secs => o.output_lifetime)
    FROM batches b JOIN openai_batches o ON o.batch_id = b.id
    WHERE f.id = :id AND b.id = f.batch_id
""")


@dataclass(frozen=True, slots=True)
class NewOpenaiBatch:
    """A batch to accept, beside the job that it becomes."""

    endpoint: str
    completion_window: str
    quarantine: bool
    output_lifetime: int | None  #: seconds from the batch's end
    input_file_id: str
    output_file_id: str
    error_file_id: str


@dataclass(frozen=True, slots=True)
class OpenaiBatch(NewOpenaiBatch):
    """A batch as it stands."""

    job: Batch
    errors: Sequence[Mapping[str, object]] | None  #: of its input file
    read_at: dt.datetime | None
    ending: str | None
    ending_at: dt.datetime | None


#: What an `OpenaiBatch` has beside its job.
_OWN_COLUMNS = (
    *(openai_batches.c[name] for name in NewOpenaiBatch.__dataclass_fields__),
    openai_batches.c.errors,
    openai_batches.c.read_at,
    batches.c.ending,
    batches.c.ending_at,
)


def create(conn: Connection, job: NewBatch, batch: NewOpenaiBatch) -> Batch:
    """Accept a batch; its file is read later. Raises `IdempotentReplay` when the key is taken,
    `NotFound` or `InvalidRequest` for its file, and `LimitReached` or `Overloaded` when too many
    files wait."""
    key = job.idempotency_key
    if key is not None and (earlier := intake.find_idempotent(conn, job.owner, key)):
        raise IdempotentReplay(earlier)
    file = files.get(conn, job.owner, batch.input_file_id)
    if file is None:
        raise NotFound("There is no such file.", param="input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest("The file's purpose has to be `batch`.", param="input_file_id")
    unread = conn.execute(_COUNT_UNREAD, {"owner": job.owner, "most": MAX_UNREAD}).one()
    if unread.own >= MAX_UNREAD_OF_OWNER:
        raise LimitReached(f"{unread.own} of your batches are still being read.")
    if unread.total >= MAX_UNREAD:
        raise Overloaded("Too many batches are still being read.")
    intake.open_batch(conn, job)
    facts = {name: getattr(batch, name) for name in NewOpenaiBatch.__dataclass_fields__}
    conn.execute(_INSERT, {"batch_id": job.id, "owner": job.owner, **facts})
    return _by_id(conn, job.id).job


def get(conn: Connection, owner: str, batch_id: str) -> OpenaiBatch | None:
    """The owner's batch; None where it is unknown, another owner's, or no batch of this kind."""
    return next(iter(_find(conn, *_shown_to(owner), openai_batches.c.batch_id == batch_id)), None)


def page(conn: Connection, owner: str, *, limit: int, after: str | None) -> list[OpenaiBatch]:
    """Up to `limit` batches older than `after`, newest first."""
    older = () if after is None else (openai_batches.c.batch_id < after,)
    return _find(conn, *_shown_to(owner), *older, limit=limit)


def any_waiting(conn: Connection) -> bool:
    """Whether a file waits to be read or to be counted, be it that somebody is at it."""
    return bool(conn.execute(_ANY_WAITING).scalar_one())


def next_unread(conn: Connection) -> OpenaiBatch | None:
    """The oldest batch whose file nobody reads, for this transaction alone."""
    found = conn.execute(_LOCK_NEXT_UNREAD).scalar_one_or_none()
    return None if found is None else _by_id(conn, found)


def accept(conn: Connection, batch_id: str) -> None:
    """Its prompts are stored; from now on there may be something to read in its files."""
    conn.execute(_READ, {"id": batch_id, "errors": None})
    conn.execute(_ADD_FILES, {"id": batch_id})


def reject(
    conn: Connection, batch_id: str, errors: Sequence[Mapping[str, object]] | None
) -> list[str]:
    """Nothing of the file is run: the job fails, unless it was cancelled meanwhile. Returns the ids
    of jobs that got their final status. Idempotent."""
    if conn.execute(_LOCK_UNREAD, {"id": batch_id}).one_or_none() is None:
        return []
    conn.execute(_READ, {"id": batch_id, "errors": None if errors is None else list(errors)})
    if not conn.execute(_REJECT, {"id": batch_id}).rowcount:
        return []
    return lifecycle.finalize(conn, batch_id)


def next_uncounted(conn: Connection) -> tuple[str, OpenaiBatch] | None:
    """A file of a finished batch whose size nobody knows, for this transaction alone; by id."""
    row = conn.execute(_NEXT_UNCOUNTED).one_or_none()
    if row is None:
        return None
    return row.id, _by_id(conn, row.batch_id)


def counted(conn: Connection, file_id: str, size: int) -> None:
    """So many bytes are in a finished batch's file, and from now on its age counts."""
    conn.execute(_COUNTED, {"id": file_id, "bytes": size})


def _shown_to(owner: str) -> tuple[ColumnElement[bool], ...]:
    return openai_batches.c.owner == owner, ~batches.c.deleting


def _by_id(conn: Connection, batch_id: str) -> OpenaiBatch:
    return _find(conn, openai_batches.c.batch_id == batch_id)[0]


def _find(
    conn: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[OpenaiBatch]:
    """Newest first. One statement, so that no batch is seen half before a change and half after."""
    statement = (
        select(*batch_columns(), *_OWN_COLUMNS)
        .join_from(openai_batches, batches, batches.c.id == openai_batches.c.batch_id)
        .where(*conditions)
        .order_by(openai_batches.c.batch_id.desc())
        .limit(limit)
    )
    return [_record(row) for row in conn.execute(statement)]


def _record(row: Row[Any]) -> OpenaiBatch:
    own = {column.name: row._mapping[column.name] for column in _OWN_COLUMNS}
    return OpenaiBatch(job=batch_record(row), **own)


def is_unread(batch: OpenaiBatch) -> bool:
    """Nobody has ended it before its file was read."""
    return batch.job.status is BatchStatus.VALIDATING
