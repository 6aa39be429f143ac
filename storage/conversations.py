"""Conversations: what the user said, turn by turn. The answers are the results of the turns'
batches and are not copied; a turn without one is left out of the history."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.ids import new_id
from storage.records import Messages
from storage.text import require_storable

# Also when it exists: the row's lock keeps two turns of one conversation in order.
_OPEN = text("""
    INSERT INTO conversations (owner, id) VALUES (:owner, :id)
    ON CONFLICT (owner, id) DO UPDATE SET updated_at = clock_timestamp()
""")
_RESET = text("DELETE FROM messages WHERE owner = :owner AND conversation_id = :id")
_SAY = text("""
    INSERT INTO messages (owner, conversation_id, batch_id, content)
    VALUES (:owner, :id, :batch_id, :content)
""")
_HISTORY = text("""
    SELECT m.content, t.text
    FROM messages m JOIN results t ON t.batch_id = m.batch_id AND t.position = 0
    WHERE m.owner = :owner AND m.conversation_id = :id AND t.text IS NOT NULL
    ORDER BY m.id DESC LIMIT :turns
""")


def open_turn(
    conn: Connection,
    owner: str,
    conversation_id: str | None,
    *,
    reset: bool,
    batch_id: str,
    message: str,
) -> str:
    """Add what the user says, to be answered by `batch_id` (which may be stored later in the same
    transaction). Returns the conversation's id, a new one where none was given. Blocks until an
    earlier turn of the conversation that is being opened is committed. Raises `InvalidRequest` for
    text that cannot be stored."""
    require_storable(conversation_id=conversation_id, message=message)
    conversation = conversation_id or new_id("conv")
    key = {"owner": owner, "id": conversation}
    conn.execute(_OPEN, key)
    if reset:
        conn.execute(_RESET, key)
    conn.execute(_SAY, {**key, "batch_id": batch_id, "content": message})
    return conversation


def history(conn: Connection, owner: str, conversation_id: str, turns: int) -> Messages:
    """The last `turns` answered turns, oldest first, as user and assistant messages."""
    rows = conn.execute(_HISTORY, {"owner": owner, "id": conversation_id, "turns": turns}).all()
    return tuple(
        message
        for row in reversed(rows)
        for message in (("user", row.content), ("assistant", row.text))
    )
