"""Files as clients know them: uploaded ones, and those whose content is a batch's outcomes, which
are there as soon as there is a line to read. Knows no blob; one that is too old is nobody's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from penstock.errors import LimitReached

# An owner's uploads of one moment are counted one by one.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(:class, hashtext(:owner))")
_LOCK_CLASS: Final = 0x46494C45  # "FILE"
# A batch's file is visible when the batch has an outcome for it.
_VISIBLE = """
    FROM files f
    LEFT JOIN openai_batches o ON o.batch_id = f.batch_id
    LEFT JOIN batches b ON b.id = f.batch_id
    WHERE f.owner = :owner AND (f.expires_at > now()) IS NOT FALSE
      AND (f.batch_id IS NULL OR NOT b.deleting)
      AND (f.batch_id IS NULL
           OR CASE f.id WHEN o.output_file_id THEN b.completed ELSE b.failed END > 0)
"""
_COLUMNS = """
    SELECT f.id, f.purpose, f.filename, f.bytes, f.created_at, f.expires_at, f.batch_id
"""
_GET = text(f"{_COLUMNS} {_VISIBLE} AND f.id = :id")
_LIST = {
    order: text(f"""
        {_COLUMNS} {_VISIBLE}
          AND (CAST(:purpose AS text) IS NULL OR f.purpose = :purpose)
          AND (CAST(:after AS text) IS NULL OR f.id {than} :after)
        ORDER BY f.id {order} LIMIT :limit
    """)
    for order, than in (("asc", ">"), ("desc", "<"))
}
_ADD = text("""
    INSERT INTO files (id, owner, purpose, filename, bytes, sha256, expires_at)
    VALUES (:id, :owner, :purpose, :filename, :bytes, :sha256,
            now() + make_interval(secs => :lifetime))
""")
_HELD = text("""
    SELECT count(*) AS files, coalesce(sum(bytes), 0) AS bytes
    FROM files WHERE owner = :owner AND batch_id IS NULL
""")
_DELETE = text("DELETE FROM files WHERE id = :id AND owner = :owner")
_DELETE_EXPIRED = text("""
    DELETE FROM files WHERE id = ANY(ARRAY(
        SELECT id FROM files WHERE expires_at < now()
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, batch_id
""")
_UNKNOWN = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS given(name)
    WHERE NOT EXISTS (SELECT FROM files f WHERE f.id = given.name)
""")


@dataclass(frozen=True, slots=True)
class NewFile:
    """An upload whose blob is stored."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    lifetime: float  #: seconds


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that its owner may read."""

    id: str
    purpose: str
    filename: str
    bytes: int | None  #: None until counted
    created_at: dt.datetime
    expires_at: dt.datetime | None
    batch_id: str | None  #: whose outcomes it has; None: it was uploaded


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Of one owner's uploads."""

    files: int = 10_000
    bytes: int = 50_000_000_000


def check_room(conn: Connection, owner: str, limits: FileLimits, more: int) -> None:
    """Raises `LimitReached` where `more` bytes in one more file are too much. Waits for nobody."""
    held = conn.execute(_HELD, {"owner": owner}).one()
    if held.files >= limits.files:
        raise LimitReached(f"You may keep {limits.files} files: delete some first.")
    if held.bytes + more > limits.bytes:
        raise LimitReached(f"You may keep {limits.bytes} bytes of files: delete some first.")


def add(conn: Connection, file: NewFile, limits: FileLimits) -> FileRecord:
    """Raises `LimitReached`, exactly: the owner's other uploads wait for this transaction."""
    conn.execute(_LOCK_OWNER, {"class": _LOCK_CLASS, "owner": file.owner})
    check_room(conn, file.owner, limits, file.bytes)
    conn.execute(_ADD, asdict(file))
    return _record(conn.execute(_GET, {"owner": file.owner, "id": file.id}).one())


def get(conn: Connection, owner: str, file_id: str) -> FileRecord | None:
    """The owner's file; None where it is unknown, expired, or another owner's."""
    row = conn.execute(_GET, {"owner": owner, "id": file_id}).one_or_none()
    return None if row is None else _record(row)


def page(
    conn: Connection,
    owner: str,
    *,
    limit: int,
    after: str | None = None,
    purpose: str | None = None,
    ascending: bool = False,
) -> list[FileRecord]:
    """Up to `limit` files by age, those behind `after`; newest first, or oldest."""
    statement = _LIST["asc" if ascending else "desc"]
    facts = {"owner": owner, "limit": limit, "after": after, "purpose": purpose}
    return [_record(row) for row in conn.execute(statement, facts)]


def delete(conn: Connection, owner: str, file_id: str) -> FileRecord | None:
    """Forget a file; its blob is the caller's to delete. None: there is none to delete."""
    found = get(conn, owner, file_id)
    if found is not None:
        conn.execute(_DELETE, {"owner": owner, "id": file_id})
    return found


def delete_expired(conn: Connection, limit: int = 100) -> list[str]:
    """Forget files that are too old. Returns the ids of those that have blobs."""
    rows = conn.execute(_DELETE_EXPIRED, {"limit": limit})
    return [row.id for row in rows if row.batch_id is None]


def unknown(conn: Connection, names: Sequence[str]) -> list[str]:
    """Which of these names no file has."""
    return list(conn.execute(_UNKNOWN, {"names": list(names)}).scalars())


def _record(row: Row[Any]) -> FileRecord:
    return FileRecord(**row._mapping)
