"""Leases taken back: given up in peace, run out, or left behind by a worker that died.

A prompt that was running when its worker died carries a crash. Two of them, and it gets a shard of
its own that an engine runs alone; three crashes alone prove that it is the cause. After each of
them it gets a new shard at the end of the queue: a machine that goes down again and again must not
meet the same prompt each time.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.errors import PromptError
from storage.tables import AGING

CRASHES_TO_ISOLATE = 2
CRASHES_TO_CONDEMN = 3

_POISON_MESSAGE = "The worker died each time this prompt ran, even alone."

# Rows are locked before they are judged: a lock returns the newest version of a row, which the
# statement's snapshot may be too old to show.
_RELEASE = text("""
    WITH fence AS (
        SELECT id FROM shards
        WHERE id = :shard AND epoch = :epoch AND state = 'leased'
        FOR NO KEY UPDATE
    ), running AS (
        SELECT r.batch_id, r.position, r.state
        FROM fence f JOIN requests r ON r.shard_id = f.id
        WHERE r.state IN ('pending', 'running')
        FOR NO KEY UPDATE OF r
    ), refunded AS (
        UPDATE requests r SET state = 'pending', attempts = r.attempts - 1
        FROM running o
        WHERE r.batch_id = o.batch_id AND r.position = o.position AND o.state = 'running'
    )
    UPDATE shards s SET state = 'ready', slot = NULL, boot_id = NULL, lease_until = NULL
    FROM fence f WHERE s.id = f.id
""")

# Jobs that are ending are left to `close_open`, which closes their shards for good.
_EXPIRED = """
    WITH dead AS (
        SELECT s.id, s.batch_id, s.model, s.lane, s.priority, s.owner, s.alone
        FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.state = 'leased' AND s.lease_until < statement_timestamp() AND b.ending IS NULL
        ORDER BY s.id LIMIT :limit
        FOR NO KEY UPDATE OF s SKIP LOCKED
    )"""
_LEFT_BEHIND = """
    WITH dead AS (
        SELECT s.id, s.batch_id, s.model, s.lane, s.priority, s.owner, s.alone
        FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.state = 'leased' AND s.slot = :slot AND s.boot_id <> :boot_id
          AND b.ending IS NULL
        ORDER BY s.id
        FOR NO KEY UPDATE OF s
    )"""
_RECLAIM = """
    , hit AS (
        SELECT r.batch_id, r.position, r.state, r.crashes, r.crashes_alone, d.id AS shard_id
        FROM dead d JOIN requests r ON r.shard_id = d.id
        WHERE r.state IN ('pending', 'running')
        ORDER BY r.batch_id, r.position
        FOR NO KEY UPDATE OF r
    ), judged AS (
        SELECT h.batch_id, h.position, h.shard_id, d.model, d.lane, d.priority, d.owner, d.alone,
               d.alone AND h.crashes_alone + 1 >= :condemn AS poison,
               CASE WHEN CASE WHEN d.alone THEN h.crashes_alone + 1 < :condemn
                              ELSE h.crashes + 1 >= :isolate END
                   THEN nextval('shards_id_seq') END AS own_shard
        FROM hit h JOIN dead d ON d.id = h.shard_id
        WHERE h.state = 'running'
    ), isolated AS (
        INSERT INTO shards
            (id, batch_id, model, lane, priority, owner, due_at, state, alone, remaining)
        SELECT own_shard, batch_id, model, lane, priority, owner,
               now() - make_interval(secs => priority * :aging), 'ready', true, 1
        FROM judged WHERE own_shard IS NOT NULL
    ), moved AS (
        UPDATE requests r
        SET state = CASE WHEN j.poison THEN 'failed' ELSE 'pending' END,
            crashes = r.crashes + 1,
            crashes_alone = r.crashes_alone + CAST(j.alone AS int),
            shard_id = coalesce(j.own_shard, r.shard_id)
        FROM judged j
        WHERE r.batch_id = j.batch_id AND r.position = j.position
    ), condemned AS (
        INSERT INTO results (batch_id, position, error_code, error_message)
        SELECT batch_id, position, :code, :message FROM judged WHERE poison
    ), gone AS (
        SELECT shard_id, count(*) AS n FROM judged
        WHERE poison OR own_shard IS NOT NULL
        GROUP BY shard_id
    ), freed AS (
        UPDATE shards s
        SET epoch = s.epoch + 1, slot = NULL, boot_id = NULL, lease_until = NULL,
            remaining = s.remaining - coalesce(g.n, 0),
            state = CASE WHEN s.remaining > coalesce(g.n, 0) THEN 'ready' ELSE 'done' END
        FROM dead d LEFT JOIN gone g ON g.shard_id = d.id
        WHERE s.id = d.id
    ), failures AS (
        SELECT batch_id, count(*) AS n FROM judged WHERE poison GROUP BY batch_id
    ), locked AS (
        SELECT b.id FROM batches b JOIN failures f ON f.batch_id = b.id
        ORDER BY b.id FOR NO KEY UPDATE OF b
    ), counted AS (
        UPDATE batches b
        SET failed = b.failed + f.n,
            status = CASE
                WHEN b.status IN ('queued', 'in_progress')
                    AND b.completed + b.failed + f.n = b.total
                THEN 'finalizing' ELSE b.status END,
            ending_at = CASE
                WHEN b.status IN ('queued', 'in_progress')
                    AND b.completed + b.failed + f.n = b.total
                THEN clock_timestamp() ELSE b.ending_at END
        FROM locked l JOIN failures f ON f.batch_id = l.id
        WHERE b.id = l.id
    )
    SELECT count(*) FROM dead
"""
_REAP = text(_EXPIRED + _RECLAIM)
_RELEASE_SLOT = text(_LEFT_BEHIND + _RECLAIM)

_VERDICTS = {
    "aging": AGING,
    "isolate": CRASHES_TO_ISOLATE,
    "condemn": CRASHES_TO_CONDEMN,
    "code": PromptError.POISON.value,
    "message": _POISON_MESSAGE,
}


def release(conn: Connection, shard: int, epoch: int) -> bool:
    """Give a lease back without penalty: what was running is pending again, its attempt refunded.
    False: the shard was lost already."""
    return conn.execute(_RELEASE, {"shard": shard, "epoch": epoch}).rowcount == 1


def release_slot(conn: Connection, slot: str, boot_id: str) -> int:
    """At boot: take back what earlier boots of this slot left. They are dead, so this counts as a
    crash for what they were running. Returns the number of shards."""
    return int(
        conn.execute(_RELEASE_SLOT, {"slot": slot, "boot_id": boot_id, **_VERDICTS}).scalar_one()
    )


def reap(conn: Connection, limit: int = 100) -> int:
    """Take back up to `limit` leases that ran out. Returns how many it took."""
    return int(conn.execute(_REAP, {"limit": limit, **_VERDICTS}).scalar_one())
