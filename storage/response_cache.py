"""Where answers to equal prompts are found again: pointers at results, and no copy of them.

A pointer whose result is gone finds nothing. Knows digests, not what they are made of.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from storage.records import Outcome

#: Of one statement that deletes.
_PORTION = 1_000
#: Entries that are counted one by one; of more, the first and the last number tell.
_COUNTED = 500

# One by one, since PostgreSQL may not know yet how many results a job has.
_FIND = text("""
    SELECT c.digest, r.text, r.finish_reason, r.prompt_tokens, r.completion_tokens,
           CAST(r.detail AS text) AS detail
    FROM response_cache c
    CROSS JOIN LATERAL (
        SELECT * FROM results
        WHERE batch_id = c.batch_id AND position = c.position LIMIT 1
    ) r
    CROSS JOIN LATERAL (
        SELECT FROM batches WHERE id = c.batch_id AND NOT deleting LIMIT 1
    ) b
    WHERE c.digest = ANY(CAST(:digests AS bytea[]))
      AND c.created_at > clock_timestamp() - make_interval(secs => :ttl)
      AND (CAST(:owner AS text) IS NULL OR c.owner = :owner)
      AND r.text IS NOT NULL
""")

# In one order everywhere, so that two workers never wait for each other.
_KEEP = text("""
    INSERT INTO response_cache (digest, owner, batch_id, position)
    SELECT DISTINCT ON (t.digest) t.digest, b.owner, b.id, t.position
    FROM unnest(CAST(:digests AS bytea[]), CAST(:positions AS int[])) AS t(digest, position)
    JOIN batches b ON b.id = :batch_id
    ORDER BY t.digest
    ON CONFLICT (digest) DO UPDATE
    SET id = excluded.id, owner = excluded.owner, batch_id = excluded.batch_id,
        position = excluded.position, created_at = excluded.created_at
""")

# Numbers grow with time, so the oldest are the lowest. The arrays keep PostgreSQL from joining with
# all that there are; one that is being kept anew is left, for its writers lock in another order.
_DELETE_OLD = text("""
    DELETE FROM response_cache WHERE id = ANY(ARRAY(
        SELECT id FROM response_cache WHERE id = ANY(ARRAY(
            SELECT o.id
            FROM (SELECT id, created_at FROM response_cache ORDER BY id LIMIT :limit) o
            WHERE o.created_at < now() - make_interval(secs => :ttl)
               OR o.id <= (SELECT max(id) FROM response_cache) - :most
        ))
        FOR UPDATE SKIP LOCKED
    ))
""")

_SIZE = text("""
    SELECT CASE WHEN counted.n <= :counted THEN counted.n
                ELSE (SELECT max(id) - min(id) + 1 FROM response_cache) END
    FROM (SELECT count(*) AS n FROM (SELECT FROM response_cache LIMIT :counted + 1) few) counted
""")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long an answer is reused, in seconds, and how many can be found again."""

    ttl: float = 86_400
    entries: int = 1_000_000


def find(
    conn: Connection, digests: Collection[bytes], *, ttl: float, owner: str | None
) -> dict[bytes, Outcome]:
    """Earlier answers by digest, at position 0 and marked as such. `owner` None: of all owners."""
    rows = conn.execute(_FIND, {"digests": list(digests), "ttl": ttl, "owner": owner})
    return {
        bytes(row.digest): Outcome(
            position=0,
            text=row.text,
            finish_reason=row.finish_reason,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            detail=row.detail,
            from_cache=True,
        )
        for row in rows
    }


def keep(conn: Connection, batch_id: str, outcomes: Sequence[Outcome]) -> None:
    """Let equal prompts find those of these stored results that have a digest. Idempotent."""
    found = [(one.digest, one.position) for one in outcomes if one.digest is not None]
    if found:
        digests, positions = zip(*found, strict=True)
        conn.execute(
            _KEEP,
            {"batch_id": batch_id, "digests": list(digests), "positions": list(positions)},
        )


def delete_old(conn: Connection, bounds: Bounds, limit: int = _PORTION) -> int:
    """Forget a portion of what is older than it may be, or too much. Returns how many; 0: none."""
    return conn.execute(
        _DELETE_OLD, {"limit": limit, "ttl": bounds.ttl, "most": bounds.entries}
    ).rowcount


def size(conn: Connection) -> int:
    """Answers that can be found again; of many thousands, about. Reads few rows."""
    return int(conn.execute(_SIZE, {"counted": _COUNTED}).scalar_one())
