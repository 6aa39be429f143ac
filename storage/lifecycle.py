"""How a job ends, and how it begins again: cancel, expire, finalize, retry.

Cancelling and expiring mark the job at once; `close_open` then closes its shards in portions, which
fences their workers out. Knows no worker and no clock but PostgreSQL's.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.errors import Conflict, PromptError
from storage import deliveries, turns
from storage.database import DONE_CHANNEL
from storage.reading import get_batch
from storage.records import Batch
from storage.states import TERMINAL_BATCH
from storage.tables import AGING, SHARD_SIZE

_MESSAGES = {
    "cancelled_message": "The job was cancelled before this prompt was done.",
    "expired_message": "The job's time ran out before this prompt was done.",
}

_CANCEL = text("""
    UPDATE batches SET status = 'cancelling', ending = 'cancelled', ending_at = clock_timestamp()
    WHERE id = :id AND owner = :owner AND status IN ('validating', 'queued', 'in_progress')
""")

_EXPIRE = text("""
    WITH due AS (
        SELECT id FROM batches
        WHERE status IN ('queued', 'in_progress') AND expires_at <= statement_timestamp()
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE batches b
    SET status = 'finalizing', ending = 'expired', ending_at = clock_timestamp()
    FROM due WHERE b.id = due.id
""")

# OFFSET 0 and the arrays keep PostgreSQL from joining with all shards or requests that there are,
# which it may do while it does not know yet how many those are.
_CLOSE_OPEN = text("""
    WITH found AS (
        SELECT o.id
        FROM batches b CROSS JOIN LATERAL (
            SELECT s.id FROM shards s
            WHERE s.batch_id = b.id AND s.state IN ('ready', 'leased') OFFSET 0
        ) o
        WHERE b.status IN ('cancelling', 'finalizing') AND b.ending IS NOT NULL
        ORDER BY o.id LIMIT :limit
    ), closing AS (
        SELECT s.id, s.batch_id, b.ending
        FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.id = ANY(ARRAY(SELECT id FROM found)) AND s.state IN ('ready', 'leased')
        ORDER BY s.id
        FOR NO KEY UPDATE OF s
    ), open AS (
        SELECT r.batch_id, r.position, c.ending
        FROM closing c JOIN requests r ON r.shard_id = c.id
        WHERE r.shard_id = ANY(ARRAY(SELECT id FROM closing))
          AND r.state IN ('pending', 'running')
        ORDER BY r.batch_id, r.position
        FOR NO KEY UPDATE OF r
    ), stored AS (
        INSERT INTO results (batch_id, position, error_code, error_message)
        SELECT batch_id, position,
               CASE ending WHEN 'expired' THEN :expired ELSE :cancelled END,
               CASE ending WHEN 'expired' THEN :expired_message ELSE :cancelled_message END
        FROM open
        ON CONFLICT DO NOTHING
        RETURNING batch_id, position
    ), ended AS (
        UPDATE requests r SET state = 'failed'
        FROM stored t WHERE r.batch_id = t.batch_id AND r.position = t.position
    ), shut AS (
        UPDATE shards s
        SET state = 'cancelled', epoch = s.epoch + 1, remaining = 0,
            slot = NULL, boot_id = NULL, lease_until = NULL
        FROM closing c WHERE s.id = c.id
    ), failures AS (
        SELECT batch_id, count(*) AS n FROM stored GROUP BY batch_id
    ), locked AS (
        SELECT b.id FROM batches b JOIN failures f ON f.batch_id = b.id
        ORDER BY b.id FOR NO KEY UPDATE OF b
    ), counted AS (
        UPDATE batches b SET failed = b.failed + f.n
        FROM locked l JOIN failures f ON f.batch_id = l.id
        WHERE b.id = l.id
    )
    SELECT count(*) FROM closing
""")

# What nobody is to see any more is the first that retention deletes.
_FINALIZE = text("""
    WITH due AS (
        SELECT id FROM batches
        WHERE status IN ('cancelling', 'finalizing') AND completed + failed = total
          AND (CAST(:id AS text) IS NULL OR id = :id)
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE batches b
    SET finished_at = CASE
            WHEN b.deleting THEN timestamptz '-infinity' ELSE clock_timestamp() END,
        status = CASE
            WHEN b.status = 'cancelling' THEN 'cancelled'
            WHEN b.ending = 'expired' THEN 'expired'
            WHEN b.completed = 0 THEN 'failed'
            ELSE 'completed' END
    FROM due WHERE b.id = due.id
    RETURNING b.id,
              (b.kind <> 'chat' OR b.callback_url IS NOT NULL) AND NOT b.deleting AS told,
              pg_notify(:channel, b.id)
""")

_LOCK_BATCH = text("""
    SELECT status FROM batches WHERE id = :id AND NOT deleting FOR NO KEY UPDATE
""")

# Lasts as long again as it was given at first, where it was given a time.
_RETRY = text("""
    WITH again AS (
        SELECT position, (row_number() OVER (ORDER BY position) - 1) / :size AS part
        FROM requests
        WHERE batch_id = :id AND state = 'failed' AND messages IS NOT NULL
    ), forgotten AS (
        DELETE FROM results t USING again a
        WHERE t.batch_id = :id AND t.position = a.position
        RETURNING t.prompt_tokens, t.completion_tokens
    ), parts AS (
        SELECT part, n, nextval('shards_id_seq') AS shard_id
        FROM (SELECT part, count(*) AS n FROM again GROUP BY part ORDER BY part) counted
    ), made AS (
        INSERT INTO shards (id, batch_id, model, lane, priority, owner, due_at, state, remaining)
        SELECT p.shard_id, b.id, b.model, b.lane, b.priority, b.owner,
               now() - make_interval(secs => b.priority * :aging), 'ready', p.n
        FROM parts p, batches b WHERE b.id = :id
    ), reopened AS (
        UPDATE requests r
        SET state = 'pending', crashes = 0, crashes_alone = 0, shard_id = p.shard_id
        FROM again a JOIN parts p ON p.part = a.part
        WHERE r.batch_id = :id AND r.position = a.position
    ), sums AS (
        SELECT count(*) AS n, coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
               coalesce(sum(completion_tokens), 0) AS completion_tokens
        FROM forgotten
    )
    UPDATE batches b
    SET status = 'queued', ending = NULL, started_at = NULL, finished_at = NULL, ending_at = NULL,
        expires_at = now() + make_interval(secs => b.expires_in),
        failed = b.failed - sums.n,
        prompt_tokens = b.prompt_tokens - sums.prompt_tokens,
        completion_tokens = b.completion_tokens - sums.completion_tokens
    FROM sums
    WHERE b.id = :id AND sums.n > 0
""")

# Made of outcomes that are no longer final.
_RECOUNT_FILES = text("UPDATE files SET bytes = NULL, expires_at = NULL WHERE batch_id = :id")


def request_cancel(conn: Connection, owner: str, batch_id: str) -> Batch | None:
    """Mark a job for cancelling; nothing of it is claimed from now on. Changes nothing where the
    job is ending or has ended. None: unknown, or another owner's."""
    if get_batch(conn, owner, batch_id) is None:
        return None
    conn.execute(_CANCEL, {"id": batch_id, "owner": owner})
    return get_batch(conn, owner, batch_id)


def expire_due(conn: Connection) -> int:
    """Mark the jobs whose time ran out. Returns how many."""
    return conn.execute(_EXPIRE).rowcount


def close_open(conn: Connection, limit: int = 200) -> int:
    """Close up to `limit` shards of jobs that are ending: their open prompts fail as cancelled or
    expired, and their workers are fenced out. Returns the number of shards; 0 when all is done, or
    what was found ended by itself meanwhile."""
    return int(
        conn.execute(
            _CLOSE_OPEN,
            {
                "limit": limit,
                "cancelled": PromptError.CANCELLED.value,
                "expired": PromptError.EXPIRED.value,
                **_MESSAGES,
            },
        ).scalar_one()
    )


def finalize(conn: Connection, batch_id: str | None = None) -> list[str]:
    """Give jobs whose every prompt has an outcome their final status, announce them, record what
    webhooks are to tell of them, and let the next turns of their conversations go. Returns their
    ids. Idempotent."""
    rows = conn.execute(_FINALIZE, {"id": batch_id, "channel": DONE_CHANNEL}).all()
    if told := [row.id for row in rows if row.told]:
        deliveries.record(conn, told)
    if ended := [row.id for row in rows]:
        turns.end(conn, ended)
    return ended


def retry_failed(conn: Connection, owner: str, batch_id: str) -> Batch | None:
    """Queue the failed prompts of a finished job again, those that can be run at all. Results that
    succeeded stay. None: unknown, or another owner's.

    Raises `Conflict` while the job is not finished.
    """
    if get_batch(conn, owner, batch_id) is None:
        return None
    status = conn.execute(_LOCK_BATCH, {"id": batch_id}).scalar_one_or_none()
    if status is None:  # retention was quicker
        return None
    if status not in TERMINAL_BATCH:
        raise Conflict("Only a finished job can be tried again.")
    conn.execute(_RETRY, {"id": batch_id, "size": SHARD_SIZE, "aging": AGING})
    conn.execute(_RECOUNT_FILES, {"id": batch_id})
    return get_batch(conn, owner, batch_id)
