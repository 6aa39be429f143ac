"""Webhook events on their way: recorded with a job's end, claimed, settled, and deleted when old.

A delivery is leased as a shard is: a claim raises its `epoch`, and only that epoch may settle it.
Knows no HTTP; the caller says what came of an attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Connection, insert, text

from penstock.ids import new_id
from storage import receivers
from storage.service_tables import webhook_deliveries
from storage.states import DeliveryState

#: To one receiver at once.
MOST_IN_FLIGHT: Final = 2
#: Seconds after the event in which attempts begin.
PATIENCE: Final = 3 * 86_400.0
#: Receivers with something pending that one claim looks at.
RING: Final = 200
_CLAIM_LOCK: Final = 0x57484F4F4B53  # "WHOOKS"

# Chats are batches of one, of which no endpoint wants to hear. The lock waits for an endpoint that
# is being deleted: an event for it would undo the end of the job.
_WANTED = text("""
    SELECT b.id, b.owner, 'batch.' || b.status AS event,
           floor(extract(epoch FROM b.finished_at))::bigint AS created_at,
           e.id AS endpoint_id, CASE WHEN e.callbacks THEN b.callback_url END AS url
    FROM batches b JOIN webhook_endpoints e ON e.owner = b.owner
    WHERE b.id = ANY(CAST(:ids AS text[])) AND e.enabled
      AND 'batch.' || b.status = ANY(e.events)
      AND CASE WHEN e.callbacks THEN b.callback_url IS NOT NULL ELSE b.kind <> 'chat' END
    ORDER BY b.id, e.id
    FOR KEY SHARE OF e
""")

# One sender claims at a time: so the count of what is in flight cannot be too low.
_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)")

# Ordered, so that PostgreSQL takes the partial indexes whatever it believes of the table.
_ANY_OPEN = text("""
    SELECT (
        SELECT receiver FROM webhook_deliveries WHERE state = 'pending' ORDER BY receiver LIMIT 1
    ) IS NOT NULL OR (
        SELECT receiver FROM webhook_deliveries WHERE state = 'delivering' ORDER BY receiver LIMIT 1
    ) IS NOT NULL
""")

# From receiver to receiver along the index, however many deliveries each has.
_RING = text("""
    WITH RECURSIVE ring AS (
        SELECT CAST(:after AS text) COLLATE "C" AS receiver
        UNION ALL
        SELECT following.receiver FROM ring CROSS JOIN LATERAL (
            SELECT d.receiver FROM webhook_deliveries d
            WHERE d.state = 'pending' AND d.receiver > ring.receiver
            ORDER BY d.receiver LIMIT 1
        ) following
    )
    SELECT receiver FROM ring OFFSET 1 LIMIT :limit
""")

# The oldest of what each receiver has room for. One that did not answer is tried with one event
# when it has rested. An owner has no more than a share, however many receivers it names.
_CLAIM = text("""
    WITH room AS (
        SELECT r.receiver, CASE
            WHEN w.paused_until > statement_timestamp() THEN 0
            WHEN w.failures > 0 THEN 1
            ELSE :most END - (
            SELECT count(*) FROM webhook_deliveries f
            WHERE f.state = 'delivering' AND f.receiver = r.receiver COLLATE "C"
        ) AS free
        FROM unnest(CAST(:receivers AS text[])) AS r(receiver)
        LEFT JOIN webhook_receivers w ON w.receiver = r.receiver COLLATE "C"
    ), due AS MATERIALIZED (
        SELECT picked.id, picked.owner, picked.next_at FROM room CROSS JOIN LATERAL (
            SELECT d.id, d.owner, d.next_at, d.endpoint_id FROM webhook_deliveries d
            WHERE d.state = 'pending' AND d.receiver = room.receiver COLLATE "C"
              AND d.next_at <= statement_timestamp()
            ORDER BY d.next_at, d.id LIMIT greatest(room.free, 0)
            FOR NO KEY UPDATE SKIP LOCKED
        ) picked
        WHERE (SELECT e.enabled FROM webhook_endpoints e WHERE e.id = picked.endpoint_id)
    ), busy AS (
        SELECT owner, count(*) AS n FROM webhook_deliveries
        WHERE state = 'delivering' GROUP BY owner
    ), chosen AS (
        SELECT id FROM (
            SELECT d.id, d.next_at, coalesce(b.n, 0)
                   + row_number() OVER (PARTITION BY d.owner ORDER BY d.next_at, d.id) AS nth
            FROM due d LEFT JOIN busy b ON b.owner = d.owner
        ) counted
        WHERE nth <= :share
        ORDER BY next_at, id LIMIT :limit
    ), claimed AS (
        UPDATE webhook_deliveries d
        SET state = 'delivering', epoch = d.epoch + 1, attempts = d.attempts + 1,
            lease_until = clock_timestamp() + make_interval(secs => :lease)
        WHERE d.id = ANY(ARRAY(SELECT id FROM chosen))
        RETURNING d.*
    )
    SELECT c.id, c.epoch, c.attempts, c.endpoint_id, c.receiver, c.batch_id, c.payload,
           coalesce(c.url, e.url) AS url, e.secret,
           CASE WHEN e.old_secret_until > now() THEN e.old_secret END AS old_secret
    FROM claimed c JOIN webhook_endpoints e ON e.id = c.endpoint_id
    ORDER BY c.receiver, c.next_at, c.id
""")

_FREE_LOST = text("""
    WITH lost AS (
        SELECT id FROM webhook_deliveries
        WHERE state = 'delivering' AND lease_until < clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries d
    SET state = 'pending', next_at = clock_timestamp(), lease_until = NULL,
        last_error = 'The sender was lost.'
    FROM lost WHERE d.id = lost.id
""")

_SETTLE = text("""
    UPDATE webhook_deliveries d
    SET state = t.state, next_at = t.next_at, lease_until = NULL, last_error = :error,
        status_code = :status, ended_at = CASE WHEN t.state <> 'pending' THEN now() END
    FROM (
        SELECT id, next_at, CASE
            WHEN :delivered THEN 'delivered'
            WHEN :final OR next_at > created_at + make_interval(secs => :patience) THEN 'dead'
            ELSE 'pending' END AS state
        FROM (
            SELECT id, created_at, clock_timestamp() + make_interval(secs => :delay) AS next_at
            FROM webhook_deliveries
            WHERE id = :id AND epoch = :epoch AND state = 'delivering'
            FOR NO KEY UPDATE
        ) mine
    ) t
    WHERE d.id = t.id
    RETURNING d.state
""")

_COUNT = text("""
    INSERT INTO webhook_outcomes AS o (outcome, attempts) VALUES (:outcome, 1)
    ON CONFLICT (outcome) DO UPDATE SET attempts = o.attempts + 1
""")

_OUTCOMES = text("SELECT outcome, attempts FROM webhook_outcomes")

_DISABLE = text("UPDATE webhook_endpoints SET enabled = false WHERE id = :id AND NOT callbacks")

_DELETE = text("""
    DELETE FROM webhook_deliveries WHERE id = ANY(ARRAY(
        SELECT id FROM webhook_deliveries
        WHERE created_at < now() - make_interval(secs => :retention)
        ORDER BY created_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
""")


@dataclass(frozen=True, slots=True)
class Claimed:
    """An event to send now. `secrets`: the present one, and that of before while it signs, too."""

    id: str
    epoch: int
    attempts: int  #: with this one
    endpoint_id: str
    receiver: str
    batch_id: str
    url: str
    payload: dict[str, object]
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one. `final`: there is no use in another; else it may follow after `delay`
    seconds. `pause`: seconds for which the receiver asks to be left alone. No `status`: it did not
    answer."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    final: bool = False
    delay: float = 0.0
    pause: float = 0.0


def record(conn: Connection, batch_ids: Sequence[str]) -> int:
    """One event for each of these jobs that has ended, to everyone who is to hear of it; in the
    transaction that ends them. Returns the number of deliveries."""
    events: dict[str, str] = {}
    rows = []
    for row in conn.execute(_WANTED, {"ids": list(batch_ids)}):
        event_id = events.setdefault(row.id, new_id("evt"))
        rows.append(
            {
                "id": new_id("whd"),
                "owner": row.owner,
                "batch_id": row.id,
                "endpoint_id": row.endpoint_id,
                "event": row.event,
                "payload": {
                    "id": event_id,
                    "object": "event",
                    "created_at": row.created_at,
                    "type": row.event,
                    "data": {"id": row.id},
                },
                "state": DeliveryState.PENDING,
                "url": row.url,
                "receiver": row.endpoint_id if row.url is None else _host(row.owner, row.url),
            }
        )
    if rows:
        conn.execute(insert(webhook_deliveries), rows)
    return len(rows)


def _host(owner: str, url: str) -> str:
    """The receiver of a `callback_url`: its host, apart for each owner, so that none waits for
    another's, and all that goes to a receiver goes by one endpoint."""
    return f"{owner}@{urlsplit(url).hostname or ''}"


def any_open(conn: Connection) -> bool:
    """Whether there are deliveries that have not ended: some to send, or some that were sent by
    senders that may be lost."""
    return bool(conn.execute(_ANY_OPEN).scalar_one())


def claim(
    conn: Connection, *, after: str = "", limit: int, share: int, lease: float
) -> tuple[list[Claimed], str]:
    """Lease up to `limit` due deliveries for `lease` seconds, so that an owner has at most `share`
    in flight. It looks at `RING` receivers from the one that follows `after` on, and says where to
    go on; empty: at the beginning.

    Claims nothing while another sender claims. Commit soon: others wait for it.
    """
    if not conn.execute(_LOCK, {"key": _CLAIM_LOCK}).scalar_one():
        return [], ""
    ring = list(conn.execute(_RING, {"after": after, "limit": RING}).scalars())
    if not ring:
        return [], ""
    limits = {"most": MOST_IN_FLIGHT, "limit": limit, "share": share, "lease": lease}
    rows = conn.execute(_CLAIM, {"receivers": ring, **limits}).all()
    claimed = [
        Claimed(
            id=row.id,
            epoch=row.epoch,
            attempts=row.attempts,
            endpoint_id=row.endpoint_id,
            receiver=row.receiver,
            batch_id=row.batch_id,
            url=row.url,
            payload=row.payload,
            secrets=tuple(bytes(s) for s in (row.secret, row.old_secret) if s is not None),
        )
        for row in rows
    ]
    return claimed, ring[-1] if len(ring) == RING else ""


def free_lost(conn: Connection) -> int:
    """Deliveries whose sender's lease ran out are due again. Returns how many."""
    return conn.execute(_FREE_LOST).rowcount


def settle(conn: Connection, delivery: Claimed, attempt: Attempt) -> DeliveryState | None:
    """Write down what came of an attempt. None: the lease was lost, and nothing was written."""
    state = conn.execute(
        _SETTLE,
        {
            "id": delivery.id,
            "epoch": delivery.epoch,
            "delivered": attempt.delivered,
            "final": attempt.final,
            "delay": attempt.delay,
            "patience": PATIENCE,
            "error": attempt.error,
            "status": attempt.status,
        },
    ).scalar_one_or_none()
    if state is None:
        return None
    if attempt.status is None and not attempt.delivered:
        receivers.rest(conn, delivery.receiver)
    else:
        receivers.answered(conn, delivery.receiver, attempt.pause)
    outcome = "retried" if state == DeliveryState.PENDING else state
    conn.execute(_COUNT, {"outcome": outcome})
    return DeliveryState(state)


def disable(conn: Connection, endpoint_id: str) -> bool:
    """The receiver said that it is gone. That of an owner's callbacks stays: it has many hosts."""
    return bool(conn.execute(_DISABLE, {"id": endpoint_id}).rowcount)


def outcomes(conn: Connection) -> dict[str, int]:
    """Attempts of all time by outcome: delivered, retried, dead."""
    return {row.outcome: row.attempts for row in conn.execute(_OUTCOMES)}


def delete_old(conn: Connection, retention: float, limit: int = 500) -> int:
    """Delete a portion of those that are older than `retention` seconds, and what is known of
    receivers that nothing is sent to any more. Returns how many."""
    receivers.forget_old(conn)
    return conn.execute(_DELETE, {"retention": retention, "limit": limit}).rowcount
