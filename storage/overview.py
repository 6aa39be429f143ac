"""Small questions about many rows at once, for those who wait and those who watch. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, text

from storage.reading import batch_columns, batch_record
from storage.records import Batch
from storage.tables import batches

_SETTLED = text(
    "SELECT id FROM batches WHERE id = ANY(:ids)"
    " AND (finished_at IS NOT NULL OR completed + failed = total)"
)
_CONVERSATIONS = text("SELECT count(*) FROM conversations WHERE owner = :owner")
_REPEATS = text(
    "SELECT coalesce(sum(attempts - 1) FILTER (WHERE attempts > 1), 0)"
    " FROM requests WHERE batch_id = :id"
)


def settled(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Which of these batches have an outcome for every prompt, or are finished."""
    return [row.id for row in conn.execute(_SETTLED, {"ids": list(ids)})]


def conversation_count(conn: Connection, owner: str) -> int:
    """Conversations that an owner has stored."""
    return int(conn.execute(_CONVERSATIONS, {"owner": owner}).scalar_one())


def list_jobs(conn: Connection, owner: str, limit: int) -> list[Batch]:
    """The owner's jobs, newest first; chats, which are batches of one, are left out."""
    rows = conn.execute(
        select(*batch_columns())
        .where(batches.c.owner == owner, batches.c.kind == "batch", ~batches.c.deleting)
        .order_by(batches.c.id.desc())
        .limit(limit)
    )
    return [batch_record(row) for row in rows]


def repeats(conn: Connection, batch_id: str) -> int:
    """How often prompts of a job were run again. Reads the whole job."""
    return int(conn.execute(_REPEATS, {"id": batch_id}).scalar_one())
