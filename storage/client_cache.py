"""What clients keep under keys of their own, for a time, within bounds for each owner.

Values are JSON text. Knows no HTTP and nothing of the service's own cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from penstock.errors import LimitReached

#: Of one statement that deletes.
_PORTION: Final = 1_000
_LATEST: Final = 60  # seconds that a refused client is told to wait, at most

# The row's lock lets one set at a time through for an owner, so that the bounds are exact.
_LOCK = text("""
    INSERT INTO client_cache_reads (owner) VALUES (:owner)
    ON CONFLICT (owner) DO UPDATE SET hits = client_cache_reads.hits
""")
_OTHERS = text("""
    SELECT count(*) AS keys, coalesce(sum(bytes), 0) AS bytes,
           extract(epoch FROM min(expires_at) - clock_timestamp()) AS seconds
    FROM client_cache WHERE owner = :owner AND key <> :key
""")
_DELETE_OWN_EXPIRED = text("""
    DELETE FROM client_cache WHERE owner = :owner AND expires_at <= clock_timestamp()
""")
_SET = text("""
    INSERT INTO client_cache (owner, key, value, bytes, expires_at)
    VALUES (:owner, :key, :value, :bytes, clock_timestamp() + make_interval(secs => :ttl))
    ON CONFLICT (owner, key) DO UPDATE
    SET value = excluded.value, bytes = excluded.bytes, created_at = excluded.created_at,
        expires_at = excluded.expires_at
""")
# The count may be lost with the machine, so reading waits for no disk.
_GET = text("""
    WITH found AS (
        SELECT value FROM client_cache
        WHERE owner = :owner AND key = :key AND expires_at > clock_timestamp()
    ), counted AS (
        INSERT INTO client_cache_reads AS r (owner, hits, misses)
        SELECT :owner, count(*), 1 - count(*) FROM found
        ON CONFLICT (owner) DO UPDATE
        SET hits = r.hits + excluded.hits, misses = r.misses + excluded.misses
    )
    SELECT (SELECT value FROM found) AS value, set_config('synchronous_commit', 'off', true)
""")
_DELETE = text("""
    DELETE FROM client_cache WHERE owner = :owner AND key = :key
    RETURNING expires_at > clock_timestamp() AS live
""")
_STATS = text("""
    SELECT (SELECT count(*) FROM client_cache
            WHERE owner = :owner AND expires_at > clock_timestamp()) AS keys,
           coalesce((SELECT hits FROM client_cache_reads WHERE owner = :owner), 0) AS hits,
           coalesce((SELECT misses FROM client_cache_reads WHERE owner = :owner), 0) AS misses
""")
_DELETE_EXPIRED = text("""
    DELETE FROM client_cache WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM client_cache
        WHERE expires_at <= now() ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value to keep for `ttl` seconds, as JSON in ASCII."""

    key: str
    value: str
    ttl: float

    @property
    def size(self) -> int:
        return len(self.key.encode()) + len(self.value)


@dataclass(frozen=True, slots=True)
class OwnerBounds:
    """What one owner may keep: `bytes` of all values and keys together."""

    keys: int = 10_000
    bytes: int = 64_000_000


@dataclass(frozen=True, slots=True)
class KeyStats:
    """Of one owner: keys that live, and reads since the first."""

    keys: int
    hits: int
    misses: int


def put(conn: Connection, owner: str, entry: Entry, bounds: OwnerBounds) -> None:
    """Keep a value in place of what is under its key. Raises `LimitReached` where the owner has no
    room."""
    conn.execute(_LOCK, {"owner": owner})
    if _wait_for_room(conn, owner, entry, bounds) is not None:
        conn.execute(_DELETE_OWN_EXPIRED, {"owner": owner})
        seconds = _wait_for_room(conn, owner, entry, bounds)
        if seconds is not None:
            raise LimitReached(
                f"You keep as much as you may: {bounds.keys} keys, {bounds.bytes} bytes together.",
                param="key",
                retry_after=min(_LATEST, max(1, math.ceil(seconds))),
            )
    conn.execute(
        _SET,
        {
            "owner": owner,
            "key": entry.key,
            "value": entry.value,
            "bytes": entry.size,
            "ttl": entry.ttl,
        },
    )


def _wait_for_room(conn: Connection, owner: str, entry: Entry, bounds: OwnerBounds) -> float | None:
    """None where there is room beside the owner's other keys; else seconds until one expires."""
    others = conn.execute(_OTHERS, {"owner": owner, "key": entry.key}).one()
    if others.keys + 1 <= bounds.keys and others.bytes + entry.size <= bounds.bytes:
        return None
    return float(others.seconds or 0)


def get(conn: Connection, owner: str, key: str) -> str | None:
    """The value, where there is one that lives. Counts the read."""
    value: str | None = conn.execute(_GET, {"owner": owner, "key": key}).one().value
    return value


def delete(conn: Connection, owner: str, key: str) -> bool:
    """Whether there was one that lived."""
    return bool(conn.execute(_DELETE, {"owner": owner, "key": key}).scalar_one_or_none())


def stats(conn: Connection, owner: str) -> KeyStats:
    """The owner's keys and reads."""
    return KeyStats(*conn.execute(_STATS, {"owner": owner}).one())


def delete_expired(conn: Connection, limit: int = _PORTION) -> int:
    """Remove a portion of what has expired. Returns how many; 0: nothing had."""
    return conn.execute(_DELETE_EXPIRED, {"limit": limit}).rowcount
