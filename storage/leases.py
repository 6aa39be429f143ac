"""The lease protocol: claim, admit, heartbeat, commit. Each is one conditional statement.

Every write names (shard, epoch) and locks that shard first; no row means that the shard is lost.
Locks are taken in one order everywhere: shards by id, then requests, then batches by id. Knows
neither workers nor messages. One commit per transaction keeps that order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, text

from storage.database import DONE_CHANNEL
from storage.reclaim import reap, release, release_slot
from storage.records import ClaimedRequest, ClaimedShard, CommitReceipt, Outcome, Params
from storage.states import Lane
from storage.tables import SHARD_SIZE
from storage.text import storable
from storage.turns import NO_HISTORY, histories

__all__ = [
    "admit",
    "claim",
    "commit",
    "extend_all",
    "heartbeat",
    "held",
    "reap",
    "release",
    "release_slot",
]

#: After an owner's name: the next name in byte order.
_NEXT = "\x01"

# `ring` steps along the index from owner to owner, from the one after the last that had a turn and
# round to it again, and only as far as the limit needs: a claim costs the same however many owners
# and shards wait. A shard's batch is asked for in a subquery and not by a join, which could be
# turned around: PostgreSQL never counts a table of a few batches, and takes any number for granted.
# A batch that is locked is being started, or ended, by somebody else; one whose time is over will
# be ended.
_CLAIM = text("""
    WITH RECURSIVE ring AS (
        SELECT CAST(:after AS text) COLLATE "C" AS owner, false AS round, :again AS ready
        UNION ALL
        SELECT following.owner, following.round, true
        FROM ring CROSS JOIN LATERAL (
            (
                SELECT s.owner, false AS round FROM shards s
                WHERE NOT ring.round AND s.owner > ring.owner
                  AND s.state = 'ready' AND s.model = :model AND s.lane = :lane
                ORDER BY s.owner LIMIT 1
            ) UNION ALL (
                SELECT s.owner, true FROM shards s
                WHERE NOT ring.round AND s.owner < :until
                  AND s.state = 'ready' AND s.model = :model AND s.lane = :lane
                ORDER BY s.owner LIMIT 1
            ) UNION ALL (
                SELECT s.owner, true FROM shards s
                WHERE ring.round AND s.owner > ring.owner AND s.owner < :until
                  AND s.state = 'ready' AND s.model = :model AND s.lane = :lane
                ORDER BY s.owner LIMIT 1
            )
            LIMIT 1
        ) following
    ), free AS MATERIALIZED (
        SELECT line.id, line.remaining, row_number() OVER () AS place
        FROM ring CROSS JOIN LATERAL (
            SELECT s.id, s.remaining FROM shards s
            WHERE ring.ready AND s.owner = ring.owner
              AND s.state = 'ready' AND s.model = :model AND s.lane = :lane
              AND s.due_at < 'infinity'
              AND (SELECT b.ending IS NULL AND (b.expires_at > clock_timestamp()) IS NOT FALSE
                   FROM batches b WHERE b.id = s.batch_id)
            ORDER BY s.due_at, s.priority DESC, s.id
            LIMIT :limit
            FOR NO KEY UPDATE OF s SKIP LOCKED
        ) line
        LIMIT :limit
    ), chosen AS (
        SELECT id, place FROM (
            SELECT id, place, sum(remaining) OVER (ORDER BY place) AS rows FROM free
        ) counted
        WHERE rows <= :rows
    ), leased AS (
        UPDATE shards s
        SET state = 'leased', epoch = s.epoch + 1, slot = :slot, boot_id = :boot_id,
            lease_until = clock_timestamp() + make_interval(secs => :lease)
        WHERE s.id = ANY(ARRAY(SELECT id FROM chosen))
        RETURNING s.id, s.epoch, s.batch_id, s.lane, s.alone, s.owner
    ), first AS (
        SELECT id FROM batches
        WHERE id IN (SELECT batch_id FROM leased) AND status = 'queued'
        FOR NO KEY UPDATE SKIP LOCKED
    ), started AS (
        UPDATE batches b SET status = 'in_progress', started_at = clock_timestamp()
        FROM first WHERE b.id = first.id
    )
    SELECT l.id, l.epoch, l.batch_id, l.lane, l.alone, l.owner, b.params, b.system,
           extract(epoch FROM b.expires_at - clock_timestamp()) AS seconds_left
    FROM leased l JOIN chosen c ON c.id = l.id JOIN batches b ON b.id = l.batch_id
    ORDER BY c.place
""")

# A statement of its own: the claim's snapshot may be older than the lock it waited for.
_OPEN_REQUESTS = text("""
    SELECT batch_id, shard_id, position, messages, CAST(params AS text) AS params,
           crashes > 0 AS repeated
    FROM requests
    WHERE shard_id = ANY(CAST(:shards AS bigint[])) AND state IN ('pending', 'running')
    ORDER BY shard_id, position
""")

_ADMIT = text("""
    WITH fence AS (
        SELECT id, batch_id FROM shards
        WHERE id = :shard AND epoch = :epoch AND state = 'leased'
        FOR NO KEY UPDATE
    ), admitted AS (
        UPDATE requests r SET state = 'running', attempts = r.attempts + 1
        FROM fence f
        WHERE r.shard_id = f.id AND r.position = ANY(CAST(:positions AS int[]))
          AND r.state = 'pending'
    )
    SELECT count(*) FROM fence
""")

# A shard that is done still takes its own epoch's commit, so that a repeat is answered in full.
_COMMIT = text("""
    WITH fence AS (
        SELECT id, batch_id FROM shards
        WHERE id = :shard AND epoch = :epoch AND state IN ('leased', 'done')
        FOR NO KEY UPDATE
    ), sent AS (
        SELECT * FROM unnest(
            CAST(:positions AS int[]), CAST(:texts AS text[]), CAST(:finishes AS text[]),
            CAST(:codes AS text[]), CAST(:messages AS text[]),
            CAST(:prompt_tokens AS int[]), CAST(:completion_tokens AS int[]),
            CAST(:details AS jsonb[]), CAST(:from_cache AS bool[]), CAST(:counted AS bool[])
        ) AS t(position, text, finish_reason, error_code, error_message,
               prompt_tokens, completion_tokens, detail, from_cache, counted)
    ), stored AS (
        INSERT INTO results (batch_id, position, text, finish_reason, error_code, error_message,
                             prompt_tokens, completion_tokens, detail, from_cache)
        SELECT f.batch_id, t.position, t.text, t.finish_reason, t.error_code, t.error_message,
               t.prompt_tokens, t.completion_tokens, t.detail, t.from_cache
        FROM fence f
        JOIN requests r ON r.shard_id = f.id
        JOIN sent t ON t.position = r.position
        WHERE r.state = 'running'
           OR (r.state = 'pending'
               AND (t.error_code IS NOT NULL OR t.from_cache OR t.counted))
        ORDER BY t.position
        ON CONFLICT DO NOTHING
        RETURNING position, error_code, prompt_tokens, completion_tokens, from_cache
    ), sums AS (
        SELECT count(*) AS n, count(*) FILTER (WHERE error_code IS NULL) AS completed,
               coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
               coalesce(sum(completion_tokens), 0) AS completion_tokens,
               coalesce(sum(prompt_tokens + completion_tokens) FILTER (WHERE from_cache), 0)
                   AS saved_tokens
        FROM stored
    ), ended AS (
        UPDATE requests r
        SET state = CASE WHEN s.error_code IS NULL THEN 'done' ELSE 'failed' END
        FROM fence f, stored s
        WHERE r.batch_id = f.batch_id AND r.position = s.position
    ), shard AS (
        UPDATE shards s
        SET remaining = s.remaining - sums.n,
            state = CASE WHEN s.remaining = sums.n THEN 'done' ELSE 'leased' END,
            lease_until = CASE WHEN s.remaining > sums.n
                THEN clock_timestamp() + make_interval(secs => :lease) END
        FROM fence f, sums
        WHERE s.id = f.id
        RETURNING s.batch_id, s.state = 'done' AS done
    ), batch AS (
        UPDATE batches b
        SET completed = b.completed + sums.completed,
            failed = b.failed + sums.n - sums.completed,
            prompt_tokens = b.prompt_tokens + sums.prompt_tokens,
            completion_tokens = b.completion_tokens + sums.completion_tokens,
            saved_tokens = b.saved_tokens + sums.saved_tokens,
            status = CASE
                WHEN b.status IN ('queued', 'in_progress')
                    AND b.completed + b.failed + sums.n = b.total
                THEN 'finalizing' ELSE b.status END,
            ending_at = CASE
                WHEN b.status IN ('queued', 'in_progress')
                    AND b.completed + b.failed + sums.n = b.total
                THEN clock_timestamp() ELSE b.ending_at END
        FROM shard, sums
        WHERE b.id = shard.batch_id
        RETURNING b.id, b.completed + b.failed = b.total AS done
    )
    SELECT sums.n, shard.done AS shard_done, batch.done AS batch_done,
           CASE WHEN batch.done THEN pg_notify(:channel, batch.id) END
    FROM sums, shard, batch
""")

_HEARTBEAT = text("""
    WITH mine AS (
        SELECT s.id FROM shards s
        JOIN unnest(CAST(:shards AS bigint[]), CAST(:epochs AS int[])) AS m(id, epoch)
          ON s.id = m.id AND s.epoch = m.epoch
        WHERE s.state = 'leased'
        ORDER BY s.id
        FOR NO KEY UPDATE OF s
    )
    UPDATE shards s SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM mine WHERE s.id = mine.id
    RETURNING s.id
""")

_HELD = text("""
    SELECT s.id FROM shards s
    JOIN unnest(CAST(:shards AS bigint[]), CAST(:epochs AS int[])) AS m(id, epoch)
      ON s.id = m.id AND s.epoch = m.epoch
    WHERE s.state = 'leased'
""")

_OF_BOOT = text("""
    SELECT id, epoch FROM shards
    WHERE state = 'leased' AND slot = :slot AND boot_id = :boot_id
""")

_EXTEND_ALL = text("""
    WITH live AS (
        SELECT id FROM shards WHERE state = 'leased' ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE shards s
    SET lease_until = greatest(s.lease_until,
                               clock_timestamp() + make_interval(secs => :lease))
    FROM live WHERE s.id = live.id
""")


def claim(
    conn: Connection,
    *,
    model: str,
    lane: Lane,
    slot: str,
    boot_id: str,
    lease: float,
    limit: int = 1,
    rows: int = SHARD_SIZE,
    after: str = "",
    again: bool = False,
) -> list[ClaimedShard]:
    """Lease up to `limit` ready shards of together `rows` requests at most, for `lease` seconds.

    Owners have their turns in a ring: it begins with the one that follows `after`, or with `after`
    itself where it goes on with `again`. Each owner's own line is by priority and age (`AGING`).
    Never waits for another claimer. Jobs that are ending are left out, and turns of conversations
    that wait for an earlier one.
    """
    leased = conn.execute(
        _CLAIM,
        {
            "after": after,
            "again": again,
            "until": after if again else after + _NEXT,
            "rows": rows,
            "model": model,
            "lane": lane,
            "slot": slot,
            "boot_id": boot_id,
            "lease": lease,
            "limit": limit,
        },
    ).all()
    turns = [row.batch_id for row in leased if lane is Lane.EXPRESS]
    said = histories(conn, turns) if turns else {}
    requests: dict[int, list[ClaimedRequest]] = defaultdict(list)
    own_params: dict[str | None, Params | None] = {None: None}
    for row in conn.execute(_OPEN_REQUESTS, {"shards": [row.id for row in leased]}):
        messages = tuple((role, content) for role, content in row.messages)
        if row.params not in own_params:
            own_params[row.params] = json.loads(row.params)
        earlier = said.get(row.batch_id, NO_HISTORY)
        requests[row.shard_id].append(
            ClaimedRequest(
                position=row.position,
                messages=messages,
                params=own_params[row.params],
                history=earlier.messages,
                omitted=earlier.omitted,
                repeated=row.repeated,
            )
        )
    return [
        ClaimedShard(
            id=row.id,
            epoch=row.epoch,
            batch_id=row.batch_id,
            lane=Lane(row.lane),
            alone=row.alone,
            owner=row.owner,
            params=row.params,
            system=row.system,
            seconds_left=None if row.seconds_left is None else float(row.seconds_left),
            requests=tuple(requests[row.id]),
        )
        for row in leased
    ]


def admit(conn: Connection, shard: int, epoch: int, positions: Sequence[int]) -> bool:
    """The engine is about to run these prompts. False: the shard is lost. Idempotent."""
    count = conn.execute(
        _ADMIT, {"shard": shard, "epoch": epoch, "positions": list(positions)}
    ).scalar_one()
    return bool(count)


def commit(
    conn: Connection, shard: int, epoch: int, outcomes: Sequence[Outcome], lease: float
) -> CommitReceipt:
    """Store outcomes of a held shard and extend its lease. Idempotent: after a lost connection,
    send it again. A success needs a prompt that was admitted, or an equal one's answer, or that
    tokens alone were asked for; a failure may come before. Text that PostgreSQL refuses is stored
    with U+FFFD in its place."""
    row = conn.execute(
        _COMMIT,
        {
            "shard": shard,
            "epoch": epoch,
            "lease": lease,
            "channel": DONE_CHANNEL,
            "positions": [outcome.position for outcome in outcomes],
            "texts": [storable(outcome.text) for outcome in outcomes],
            "finishes": [outcome.finish_reason for outcome in outcomes],
            "codes": [outcome.error_code for outcome in outcomes],
            "messages": [storable(outcome.error_message) for outcome in outcomes],
            "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
            "completion_tokens": [outcome.completion_tokens for outcome in outcomes],
            "details": [outcome.detail for outcome in outcomes],
            "from_cache": [outcome.from_cache or None for outcome in outcomes],
            "counted": [outcome.counted for outcome in outcomes],
        },
    ).one_or_none()
    if row is None:
        return CommitReceipt(held=False, stored=0, shard_done=False, batch_done=False)
    return CommitReceipt(
        held=True, stored=row.n, shard_done=row.shard_done, batch_done=row.batch_done
    )


def heartbeat(conn: Connection, shards: Sequence[tuple[int, int]], lease: float) -> set[int]:
    """Extend these (shard, epoch) leases; returns the shards that are still held."""
    return set(conn.execute(_HEARTBEAT, {**_leases(shards), "lease": lease}).scalars())


def held(conn: Connection, shards: Sequence[tuple[int, int]]) -> set[int]:
    """Those of these (shard, epoch) leases that still stand. Reads only, waits for nobody."""
    return set(conn.execute(_HELD, _leases(shards)).scalars())


def of_boot(conn: Connection, slot: str, boot_id: str) -> set[tuple[int, int]]:
    """Every (shard, epoch) that this life of a worker holds, by the database's account."""
    rows = conn.execute(_OF_BOOT, {"slot": slot, "boot_id": boot_id})
    return {(row.id, row.epoch) for row in rows}


def extend_all(conn: Connection, lease: float) -> int:
    """Give every live lease at least `lease` seconds more: workers could not reach the database
    either while the dispatcher could not."""
    return conn.execute(_EXTEND_ALL, {"lease": lease}).rowcount


def _leases(shards: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"shards": [shard for shard, _ in shards], "epochs": [epoch for _, epoch in shards]}
