"""What the clock of the queue has to do, asked with one statement. Mostly it is nothing, and to
plan the statements that do it takes PostgreSQL longer than to find that out. Reads a row or two of
each table, along an index."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

# Ordered, so that PostgreSQL takes the partial index whatever it believes of the table.
_DUE = text("""
    SELECT
        coalesce((
            SELECT expires_at FROM batches WHERE status IN ('queued', 'in_progress')
            ORDER BY expires_at LIMIT 1
        ) <= statement_timestamp(), false) AS expiry,
        (
            SELECT id FROM batches WHERE status IN ('cancelling', 'finalizing')
            ORDER BY id LIMIT 1
        ) IS NOT NULL AS ending,
        (
            SELECT owner FROM messages WHERE open
            ORDER BY owner, conversation_id, created_at LIMIT 1
        ) IS NOT NULL AS turns,
        (
            SELECT model FROM shards WHERE state = 'ready' ORDER BY model, lane LIMIT 1
        ) IS NOT NULL AS claims
""")


@dataclass(frozen=True, slots=True)
class Due:
    """At one moment."""

    expiry: bool  #: a job's time has run out
    ending: bool  #: a job is ending, and may have open prompts to close
    turns: bool  #: a turn of a conversation is open
    claims: bool  #: a shard is ready


def look(conn: Connection) -> Due:
    """What there is to do now."""
    row = conn.execute(_DUE).one()
    return Due(expiry=row.expiry, ending=row.ending, turns=row.turns, claims=row.claims)
