"""All turns of all conversations out and in again, portion by portion, while the service runs.

A turn is known by its owner, its conversation and when it was said, so that what is there already
is not stored twice. Knows records; knows no file format.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from storage.database import Database

#: Of one read: turns, of which the next read takes more or fewer, and characters to aim at.
_FIRST_PAGE: Final = 64
_MAX_PAGE: Final = 2_000
_PAGE_CHARACTERS: Final = 2_000_000

_READ = text("""
    SELECT m.id, m.owner, m.conversation_id, c.created_at AS started_at, m.created_at AS said_at,
           m.content AS message, coalesce(m.answer, r.text) AS answer,
           coalesce(m.answered_at, r.created_at) AS answered_at
    FROM messages m
    JOIN conversations c ON c.owner = m.owner AND c.id = m.conversation_id
    LEFT JOIN results r ON r.batch_id = m.batch_id AND r.position = 0
    WHERE (CAST(:one AS text) IS NULL OR m.owner = :one)
      AND (m.owner, m.conversation_id, m.created_at, m.id) > (:owner, :conversation, :at, :id)
    ORDER BY m.owner, m.conversation_id, m.created_at, m.id LIMIT :limit
""")
_ARRAYS = """
    unnest(CAST(:owners AS text[]), CAST(:conversations AS text[]), CAST(:started AS timestamptz[]),
           CAST(:said AS timestamptz[]), CAST(:messages AS text[]), CAST(:answers AS text[]),
           CAST(:answered AS timestamptz[]))
    WITH ORDINALITY AS t(owner, conversation_id, started_at, said_at, message, answer, answered_at,
                         place)
"""
# In their order, so that two imports lock in the same one.
_OPEN = text(f"""
    INSERT INTO conversations (owner, id, created_at, updated_at)
    SELECT owner, conversation_id, min(started_at), max(said_at) FROM {_ARRAYS}
    GROUP BY owner, conversation_id ORDER BY owner, conversation_id
    ON CONFLICT (owner, id) DO UPDATE SET
        created_at = least(conversations.created_at, excluded.created_at),
        updated_at = greatest(conversations.updated_at, excluded.updated_at)
""")  # noqa: S608  # the arrays' text is ours
_SAY = text(f"""
    INSERT INTO messages (owner, conversation_id, content, created_at, answer, answered_at)
    SELECT owner, conversation_id, message, said_at, answer, answered_at FROM (
        SELECT DISTINCT ON (owner, conversation_id, said_at) * FROM {_ARRAYS}
        ORDER BY owner, conversation_id, said_at, place
    ) given
    WHERE NOT EXISTS (
        SELECT FROM messages m
        WHERE m.owner = given.owner AND m.conversation_id = given.conversation_id
          AND m.created_at = given.said_at
    )
    ORDER BY place
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """One turn of anybody's conversation. Times have a time zone; `answer` is None where there was
    none."""

    owner: str
    conversation_id: str
    started_at: dt.datetime  #: when the conversation was
    said_at: dt.datetime
    message: str
    answer: str | None
    answered_at: dt.datetime | None


def read_all(database: Database, owner: str | None = None) -> Iterator[SaidTurn]:
    """Every turn, or those of one owner, conversation by conversation in the order they were said.
    Each portion is a transaction of its own: what is said meanwhile may be there or not."""
    after = {"owner": "", "conversation": "", "at": dt.datetime.min.replace(tzinfo=dt.UTC), "id": 0}
    limit = _FIRST_PAGE
    while True:
        with database.begin() as conn:
            rows = conn.execute(_READ, {**after, "one": owner, "limit": limit}).all()
        size = 0
        for row in rows:
            size += len(row.message) + len(row.answer or "")
            yield SaidTurn(*row[1:])
        if not rows:
            return
        after = {
            "owner": row.owner,
            "conversation": row.conversation_id,
            "at": row.said_at,
            "id": row.id,
        }
        limit = max(1, min(_MAX_PAGE, len(rows) * _PAGE_CHARACTERS // max(size, 1)))


def store(database: Database, turns: Sequence[SaidTurn]) -> int:
    """Store those of these turns that are not there, in one transaction. Returns how many."""
    values = {
        "owners": [turn.owner for turn in turns],
        "conversations": [turn.conversation_id for turn in turns],
        "started": [turn.started_at for turn in turns],
        "said": [turn.said_at for turn in turns],
        "messages": [turn.message for turn in turns],
        "answers": [turn.answer for turn in turns],
        "answered": [turn.answered_at for turn in turns],
    }

    def work(conn: Connection) -> int:
        conn.execute(_OPEN, values)
        return conn.execute(_SAY, values).rowcount

    return database.transact(work)
