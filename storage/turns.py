"""The order of turns in a conversation: each is answered when those before it have ended, and its
prompt has their answers.

A turn is open until its batch has ended. One that comes while an earlier one is open has `infinity`
for its place in the owner's line, where no claim looks, and gets a place when it is the first of
those that are open. Locks are taken in the order conversations, batches, messages, shards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from storage.records import Messages
from storage.tables import AGING

#: Earlier turns that are looked at, and so the most that are counted as left out.
MOST_TURNS: Final = 1_000

# The lock waits for an end that is being stored, or lets it wait for this turn: it cannot miss it.
_EARLIER_OPEN = text("""
    SELECT e.id FROM messages m JOIN messages e
      ON e.owner = m.owner AND e.conversation_id = m.conversation_id
     AND e.created_at < m.created_at AND e.open
    WHERE m.batch_id = :batch
    ORDER BY e.created_at DESC LIMIT 1
    FOR SHARE OF e
""")
_WAIT = text("UPDATE shards SET due_at = 'infinity' WHERE batch_id = :batch AND state = 'ready'")

_CLOSE = text("""
    UPDATE messages SET open = false WHERE batch_id = ANY(CAST(:batches AS text[])) AND open
    RETURNING owner, conversation_id
""")
# No joins: PostgreSQL would read whole tables for them while it does not know how few turns are
# open.
_CLOSE_ENDED = text("""
    UPDATE messages SET open = false WHERE id = ANY(ARRAY(
        SELECT m.id FROM messages m
        WHERE m.open
          AND (SELECT b.finished_at FROM batches b WHERE b.id = m.batch_id) IS NOT NULL
    ))
""")

# A place as it would have got at first: it is as old as it is.
_ADMIT = text("""
    UPDATE shards s SET due_at = s.created_at - make_interval(secs => s.priority * :aging)
    WHERE s.batch_id = ANY(CAST(:batches AS text[])) AND s.due_at = 'infinity'
""")
_ADMIT_NEXT = text("""
    UPDATE shards s SET due_at = s.created_at - make_interval(secs => s.priority * :aging)
    FROM unnest(CAST(:owners AS text[]), CAST(:ids AS text[])) AS t(owner, id)
    CROSS JOIN LATERAL (
        SELECT m.batch_id FROM messages m
        WHERE m.open AND m.owner = t.owner AND m.conversation_id = t.id
        ORDER BY m.created_at LIMIT 1
    ) next
    WHERE s.batch_id = next.batch_id AND s.due_at = 'infinity'
""")
_ADMIT_FIRST = text("""
    UPDATE shards s SET due_at = s.created_at - make_interval(secs => s.priority * :aging)
    WHERE s.batch_id = ANY(ARRAY(
        SELECT DISTINCT ON (owner, conversation_id) batch_id FROM messages
        WHERE open ORDER BY owner, conversation_id, created_at
    )) AND s.due_at = 'infinity'
""")

_HISTORY = text("""
    SELECT t.batch_id, earlier.content, earlier.answer, earlier.known - t.history AS omitted
    FROM messages t CROSS JOIN LATERAL (
        SELECT known.content, known.answer, count(*) OVER () AS known,
               row_number() OVER (ORDER BY known.created_at DESC, known.id DESC) AS place
        FROM (
            SELECT e.id, e.created_at, e.content, coalesce(e.answer, r.text) AS answer
            FROM messages e LEFT JOIN results r ON r.batch_id = e.batch_id AND r.position = 0
            WHERE e.owner = t.owner AND e.conversation_id = t.conversation_id
              AND (e.created_at, e.id) < (t.created_at, t.id)
              AND coalesce(e.answer, r.text) IS NOT NULL
            ORDER BY e.created_at DESC, e.id DESC LIMIT :most
        ) known
    ) earlier
    WHERE t.batch_id = ANY(CAST(:batches AS text[])) AND earlier.place <= t.history
    ORDER BY t.batch_id, earlier.place DESC
""")


@dataclass(frozen=True, slots=True)
class History:
    """What was said before a turn: the last answered turns, oldest first, as user and assistant
    messages, and how many older ones are left out."""

    messages: Messages = ()
    omitted: int = 0


NO_HISTORY: Final = History()


def line_up(conn: Connection, batch_id: str) -> bool:
    """Let a turn wait, if an earlier one of its conversation is open. For the transaction that
    opened and stored it. True: it waits."""
    if conn.execute(_EARLIER_OPEN, {"batch": batch_id}).one_or_none() is None:
        return False
    conn.execute(_WAIT, {"batch": batch_id})
    return True


def end(conn: Connection, batch_ids: Sequence[str]) -> None:
    """These batches have ended: the next turns of their conversations may be claimed."""
    ended = {
        (row.owner, row.conversation_id)
        for row in conn.execute(_CLOSE, {"batches": list(batch_ids)})
    }
    if ended:
        pairs = {"owners": [owner for owner, _ in ended], "ids": [name for _, name in ended]}
        conn.execute(_ADMIT_NEXT, {**pairs, "aging": AGING})


def admit(conn: Connection, batch_ids: Sequence[str]) -> None:
    """These turns wait no longer, whatever was before them."""
    conn.execute(_ADMIT, {"batches": list(batch_ids), "aging": AGING})


def settle(conn: Connection) -> int:
    """What `end` does, for all conversations by their state: what an end missed. Returns how many
    turns may be claimed now. Reads the open turns and no others."""
    conn.execute(_CLOSE_ENDED)
    return conn.execute(_ADMIT_FIRST, {"aging": AGING}).rowcount


def histories(conn: Connection, batch_ids: Sequence[str]) -> Mapping[str, History]:
    """What was said before these turns, by batch; one that has nothing to be sent along is left
    out."""
    turns: dict[str, list[tuple[str, str]]] = defaultdict(list)
    omitted: dict[str, int] = {}
    for row in conn.execute(_HISTORY, {"batches": list(batch_ids), "most": MOST_TURNS}):
        turns[row.batch_id] += [("user", row.content), ("assistant", row.answer)]
        omitted[row.batch_id] = max(0, row.omitted)
    return {name: History(tuple(said), omitted[name]) for name, said in turns.items()}
