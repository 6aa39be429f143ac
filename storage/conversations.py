"""Conversations: what the user said, turn by turn, and what was answered. The answers are the
results of the turns' batches and are not copied; only of imported turns they are kept here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from penstock.ids import new_id
from storage import forgetting, turns
from storage.text import is_storable, require_storable

#: Seconds since its last turn for which a conversation counts as active.
ACTIVE: Final = 3_600.0
#: Of one page of turns, but for its last one: bytes of what was said and answered.
_PAGE_BYTES: Final = 8_000_000

# Also when it exists: the row's lock keeps two turns of one conversation in order, and its time
# grows from turn to turn whatever the clock does.
_OPEN = text("""
    INSERT INTO conversations (owner, id) VALUES (:owner, :id)
    ON CONFLICT (owner, id) DO UPDATE SET updated_at =
        greatest(clock_timestamp(), conversations.updated_at + interval '1 microsecond')
    RETURNING updated_at
""")
_RESET = text("""
    DELETE FROM messages WHERE owner = :owner AND conversation_id = :id RETURNING batch_id
""")
_SAY = text("""
    INSERT INTO messages (owner, conversation_id, batch_id, content, created_at, history, open)
    VALUES (:owner, :id, :batch_id, :content, :at, :history, true)
""")

_LIST = text("""
    SELECT id, created_at, updated_at FROM conversations
    WHERE owner = :owner
      AND (CAST(:at AS timestamptz) IS NULL OR (updated_at, id) < (:at, :before))
    ORDER BY updated_at DESC, id DESC LIMIT :limit
""")
_GET = text("""
    SELECT id, created_at, updated_at FROM conversations WHERE owner = :owner AND id = :id
""")
_TURNS = text("""
    SELECT id, said_at, message, answer, answered_at FROM (
        SELECT said.*, sum(octet_length(message) + coalesce(octet_length(answer), 0)) OVER (
                   ORDER BY said_at DESC, id DESC
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
               ) AS bytes_after
        FROM (
            SELECT m.id, m.created_at AS said_at, m.content AS message,
                   coalesce(m.answer, r.text) AS answer,
                   coalesce(m.answered_at, r.created_at) AS answered_at
            FROM messages m LEFT JOIN results r ON r.batch_id = m.batch_id AND r.position = 0
            WHERE m.owner = :owner AND m.conversation_id = :id
              AND (CAST(:at AS timestamptz) IS NULL OR (m.created_at, m.id) < (:at, :before))
            ORDER BY m.created_at DESC, m.id DESC LIMIT :limit
        ) said
    ) page
    WHERE bytes_after IS NULL OR bytes_after < :bytes
    ORDER BY said_at, id
""")

# Steps from owner to owner along the index, so that it reads no conversation that is silent.
_ACTIVE = text("""
    WITH RECURSIVE owners AS (
        (SELECT owner FROM conversations ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT following.owner
        FROM owners CROSS JOIN LATERAL (
            SELECT c.owner FROM conversations c WHERE c.owner > owners.owner
            ORDER BY c.owner LIMIT 1
        ) following
    )
    SELECT coalesce(sum(active.n), 0) FROM owners CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM conversations c
        WHERE c.owner = owners.owner
          AND c.updated_at > now() - make_interval(secs => :active)
    ) active
""")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One that an owner has. `updated_at` is when its last turn was said."""

    id: str
    created_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said once, and its answer: None while there is none, or where it failed."""

    id: int
    said_at: dt.datetime
    message: str
    answer: str | None
    answered_at: dt.datetime | None


def open_turn(
    conn: Connection,
    owner: str,
    conversation_id: str | None,
    *,
    reset: bool,
    batch_id: str,
    message: str,
    history: int = 0,
) -> str:
    """Add what the user says, to be answered by `batch_id`, which is stored later in the same
    transaction and then given to `turns.line_up`; `history` earlier turns at most are sent along.
    Returns the conversation's id, a new one where none was given. Blocks until an earlier turn of
    the conversation that is being opened is committed. Raises `InvalidRequest` for text that cannot
    be stored."""
    require_storable(conversation_id=conversation_id, message=message)
    conversation = conversation_id or new_id("conv")
    key = {"owner": owner, "id": conversation}
    at = conn.execute(_OPEN, key).scalar_one()
    if reset:
        forgetting.hide_ended(conn, owner, conversation)
        forgotten = conn.execute(_RESET, key).scalars()
        turns.admit(conn, [batch for batch in forgotten if batch is not None])
    conn.execute(
        _SAY, {**key, "batch_id": batch_id, "content": message, "at": at, "history": history}
    )
    return conversation


def page(
    conn: Connection, owner: str, limit: int, before: tuple[dt.datetime, str] | None = None
) -> list[Conversation]:
    """An owner's conversations, the last used first; those after one of `before`, its time and
    id."""
    at, name = before or (None, "")
    rows = conn.execute(_LIST, {"owner": owner, "limit": limit, "at": at, "before": name})
    return [Conversation(*row) for row in rows]


def get(conn: Connection, owner: str, conversation_id: str) -> Conversation | None:
    """None where it is unknown, or another owner's."""
    if not is_storable(conversation_id):
        return None
    row = conn.execute(_GET, {"owner": owner, "id": conversation_id}).one_or_none()
    return None if row is None else Conversation(*row)


def last_turns(
    conn: Connection,
    owner: str,
    conversation_id: str,
    limit: int,
    before: tuple[dt.datetime, int] | None = None,
) -> Sequence[Turn]:
    """Up to `limit` turns, oldest first: the last ones, or those before one, by its time and id.
    Fewer where they are large; none only when there are none."""
    at, turn = before or (None, 0)
    rows = conn.execute(
        _TURNS,
        {
            "owner": owner,
            "id": conversation_id,
            "limit": limit,
            "at": at,
            "before": turn,
            "bytes": _PAGE_BYTES,
        },
    )
    return [Turn(*row) for row in rows]


def active_count(conn: Connection) -> int:
    """Conversations of all owners that had a turn in the last hour."""
    return int(conn.execute(_ACTIVE, {"active": ACTIVE}).scalar_one())
