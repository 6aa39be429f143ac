"""What retention removes for good: jobs that finished long ago, with their prompts, their results
and what was said in the turns of conversations.

A job is hidden from its owner at once and deleted in portions, so that no statement grows with it.
Knows no clock but PostgreSQL's.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

#: Of one transaction: jobs that are looked at, and shards that go with all of theirs.
_JOBS = 100
_SHARDS = 50
_ARRIVALS = 5_000

# The key is free for a new job then.
_HIDE = text("""
    WITH old AS (
        SELECT id FROM batches
        WHERE finished_at < now() - make_interval(secs => :retention)
        ORDER BY finished_at, id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), hidden AS (
        UPDATE batches b SET deleting = true, idempotency_key = NULL
        FROM old WHERE b.id = old.id AND NOT b.deleting
    )
    SELECT id FROM old
""")

_DELETE_SHARDS = text("""
    DELETE FROM shards WHERE id = ANY(ARRAY(
        SELECT id FROM shards WHERE batch_id = ANY(CAST(:jobs AS text[])) LIMIT :limit
    ))
""")

_DELETE_ARRIVALS = text("""
    DELETE FROM arrivals WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM arrivals WHERE batch_id = ANY(CAST(:jobs AS text[])) LIMIT :limit
    ))
""")

_EMPTY = text("""
    SELECT b.id FROM batches b
    WHERE b.id = ANY(CAST(:jobs AS text[]))
      AND NOT EXISTS (SELECT FROM shards s WHERE s.batch_id = b.id)
      AND NOT EXISTS (SELECT FROM arrivals a WHERE a.batch_id = b.id)
""")

_DELETE_TURNS = text("""
    DELETE FROM messages WHERE batch_id = ANY(CAST(:jobs AS text[]))
    RETURNING owner, conversation_id
""")

# One that is locked gets another turn at this moment: that turn's end takes it along.
_DELETE_CONVERSATIONS = text("""
    WITH over AS (
        SELECT c.owner, c.id FROM conversations c
        JOIN unnest(CAST(:owners AS text[]), CAST(:ids AS text[])) AS t(owner, id)
          ON c.owner = t.owner AND c.id = t.id
        WHERE c.updated_at < now() - make_interval(secs => :retention)
          AND NOT EXISTS (
              SELECT FROM messages m WHERE m.owner = c.owner AND m.conversation_id = c.id
          )
        FOR UPDATE OF c SKIP LOCKED
    )
    DELETE FROM conversations c USING over WHERE c.owner = over.owner AND c.id = over.id
""")

_DELETE_JOBS = text("DELETE FROM batches WHERE id = ANY(CAST(:jobs AS text[]))")


def delete_old(
    conn: Connection, retention: float, *, jobs: int = _JOBS, shards: int = _SHARDS
) -> int:
    """Hide jobs that finished more than `retention` seconds ago, and delete a portion of them.
    Returns how much it deleted, in shards and jobs: 0 when there is nothing old any more."""
    old = list(conn.execute(_HIDE, {"retention": retention, "limit": jobs}).scalars())
    if not old:
        return 0
    gone = conn.execute(_DELETE_SHARDS, {"jobs": old, "limit": shards}).rowcount
    arrivals = conn.execute(_DELETE_ARRIVALS, {"jobs": old, "limit": _ARRIVALS}).rowcount
    gone += arrivals // _ARRIVALS  # a full portion: there may be more
    empty = list(conn.execute(_EMPTY, {"jobs": old}).scalars())
    _delete_turns(conn, empty, retention)
    return gone + conn.execute(_DELETE_JOBS, {"jobs": empty}).rowcount


def _delete_turns(conn: Connection, jobs: list[str], retention: float) -> None:
    """What was said in these jobs, and the conversations that hold nothing more."""
    turns = {
        (row.owner, row.conversation_id) for row in conn.execute(_DELETE_TURNS, {"jobs": jobs})
    }
    conn.execute(
        _DELETE_CONVERSATIONS,
        {
            "owners": [owner for owner, _ in turns],
            "ids": [conversation for _, conversation in turns],
            "retention": retention,
        },
    )
