"""Conversations that go: at their owner's word, or by themselves when they were silent too long.

What was said goes at once. The jobs that answer it are hidden, and retention deletes them next, or
as soon as they have ended, with prompts and results. Locks are taken in the order conversations,
batches, messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

#: Of one transaction.
_CONVERSATIONS = 100
_TURNS = 1_000

_LOCK = text("""
    SELECT 1 FROM conversations WHERE owner = :owner AND id = :id FOR UPDATE
""")
_BATCHES = text("""
    SELECT batch_id FROM messages
    WHERE owner = :owner AND conversation_id = :id AND batch_id IS NOT NULL
""")
# Retention takes the oldest first. One that has not ended is hidden too, and goes when it has: what
# it ends with, nobody is told.
_HIDE = text("""
    WITH theirs AS (
        SELECT id FROM batches
        WHERE id = ANY(CAST(:batches AS text[])) AND (:live OR finished_at IS NOT NULL)
        ORDER BY id FOR UPDATE
    )
    UPDATE batches b
    SET deleting = true, idempotency_key = NULL,
        finished_at = CASE WHEN b.finished_at IS NOT NULL THEN timestamptz '-infinity' END
    FROM theirs WHERE b.id = theirs.id
""")
_CANCEL = text("""
    WITH live AS (
        SELECT id FROM batches
        WHERE id = ANY(CAST(:batches AS text[])) AND status IN ('queued', 'in_progress')
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE batches b
    SET status = 'cancelling', ending = 'cancelled', ending_at = clock_timestamp()
    FROM live WHERE b.id = live.id
""")
_DELETE = text("DELETE FROM conversations WHERE owner = :owner AND id = :id")

# Owner by owner along the index. One whose turn is open is not silent yet, and one that is locked
# gets another turn at this moment.
_SILENT = text("""
    WITH RECURSIVE owners AS (
        (SELECT owner FROM conversations ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT following.owner
        FROM owners CROSS JOIN LATERAL (
            SELECT c.owner FROM conversations c WHERE c.owner > owners.owner
            ORDER BY c.owner LIMIT 1
        ) following
    )
    SELECT silent.owner, silent.id
    FROM owners
    LEFT JOIN unnest(CAST(:owners AS text[]), CAST(:ttls AS float8[])) AS own(owner, ttl)
      ON own.owner = owners.owner
    CROSS JOIN LATERAL (
        SELECT c.owner, c.id FROM conversations c
        WHERE c.owner = owners.owner
          AND c.updated_at < now() - make_interval(secs => coalesce(own.ttl, :ttl))
          AND NOT EXISTS (
              SELECT FROM messages m
              WHERE m.open AND m.owner = c.owner AND m.conversation_id = c.id
          )
        ORDER BY c.updated_at, c.id LIMIT :limit
        FOR UPDATE OF c SKIP LOCKED
    ) silent
    LIMIT :limit
""")
_OLDEST_TURNS = text("""
    SELECT m.id, m.batch_id
    FROM unnest(CAST(:owners AS text[]), CAST(:ids AS text[])) AS t(owner, id)
    CROSS JOIN LATERAL (
        SELECT id, batch_id FROM messages
        WHERE owner = t.owner AND conversation_id = t.id
        ORDER BY created_at, id LIMIT :limit
    ) m
    LIMIT :limit
""")
_DELETE_TURNS = text("DELETE FROM messages WHERE id = ANY(CAST(:turns AS bigint[]))")
_DELETE_EMPTY = text("""
    DELETE FROM conversations c
    USING unnest(CAST(:owners AS text[]), CAST(:ids AS text[])) AS t(owner, id)
    WHERE c.owner = t.owner AND c.id = t.id AND NOT EXISTS (
        SELECT FROM messages m WHERE m.owner = c.owner AND m.conversation_id = c.id
    )
""")


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """Seconds from a conversation's last turn to its end: for some owners, and for all others."""

    others: float
    owners: Mapping[str, float] = field(default_factory=dict)


def delete(conn: Connection, owner: str, conversation_id: str) -> bool:
    """Forget a conversation; turns that have no answer yet are cancelled. False where it is
    unknown, or another owner's."""
    key = {"owner": owner, "id": conversation_id}
    if conn.execute(_LOCK, key).one_or_none() is None:
        return False
    _forget(conn, list(conn.execute(_BATCHES, key).scalars()))
    conn.execute(_DELETE, key)
    return True


def hide_ended(conn: Connection, owner: str, conversation_id: str) -> None:
    """Hide the jobs of the turns that have ended, before the turns are deleted; the others are
    answered yet, for who waits for them. For a transaction that has locked the conversation."""
    said = conn.execute(_BATCHES, {"owner": owner, "id": conversation_id}).scalars()
    conn.execute(_HIDE, {"batches": list(said), "live": False})


def delete_silent(
    conn: Connection, ttl: TimeToLive, *, limit: int = _CONVERSATIONS, turns: int = _TURNS
) -> int:
    """Forget a portion of what was silent for too long, the oldest turns first; one that is tried
    again at this moment is cancelled. Returns how many conversations and turns it deleted: 0 when
    there is nothing of that kind any more."""
    owners, ttls = list(ttl.owners), list(ttl.owners.values())
    silent = conn.execute(
        _SILENT, {"owners": owners, "ttls": ttls, "ttl": ttl.others, "limit": limit}
    ).all()
    if not silent:
        return 0
    keys = {"owners": [row.owner for row in silent], "ids": [row.id for row in silent]}
    said = conn.execute(_OLDEST_TURNS, {**keys, "limit": turns}).all()
    _forget(conn, _known([row.batch_id for row in said]))
    gone = conn.execute(_DELETE_TURNS, {"turns": [row.id for row in said]}).rowcount
    return gone + conn.execute(_DELETE_EMPTY, keys).rowcount


def _forget(conn: Connection, batches: list[str]) -> None:
    conn.execute(_HIDE, {"batches": batches, "live": True})
    conn.execute(_CANCEL, {"batches": batches})


def _known(batches: Sequence[str | None]) -> list[str]:
    """Imported turns have none."""
    return [batch for batch in batches if batch is not None]
