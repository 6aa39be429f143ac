"""API keys: stored, found, rotated, revoked. What a key may do, its reader decides.

A key is never deleted: what was revoked stays in the list, and tells that keys are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from storage.records import ApiKey, NewApiKey
from storage.text import require_storable

_COLUMNS: Final = """
    id, owner, name, key_hash, scopes, requests_per_minute, tokens_per_minute,
    created_at, last_used_at, expires_at, revoked_at,
    extract(epoch FROM least(expires_at, revoked_at) - now()) AS seconds_left
"""
_IN_USE: Final = "coalesce(least(expires_at, revoked_at) > now(), true)"

# ruff: noqa: S608  # what is put into statements here is constant
_ADD = text(f"""
    INSERT INTO api_keys (id, owner, name, key_hash, scopes, requests_per_minute,
                          tokens_per_minute, expires_at)
    VALUES (:id, :owner, :name, :digest, :scopes, :requests_per_minute, :tokens_per_minute,
            now() + make_interval(secs => CAST(:expires_in AS double precision)))
    RETURNING {_COLUMNS}
""")
_FIND = text(f"SELECT {_COLUMNS} FROM api_keys WHERE id = :id")
_LIST = text(f"""
    SELECT {_COLUMNS} FROM api_keys
    WHERE owner = :owner OR :owner IS NULL ORDER BY created_at, id
""")
_ANY = text("SELECT EXISTS (SELECT 1 FROM api_keys)")
_ANY_IN_USE = text(f"SELECT EXISTS (SELECT 1 FROM api_keys WHERE {_IN_USE})")
_REVOKE = text(f"""
    UPDATE api_keys SET revoked_at = least(revoked_at, now()) WHERE id = :id
    RETURNING {_COLUMNS}
""")
# One statement: of two rotations at once, the second finds a key that has its end.
_ROTATE = text(f"""
    WITH given AS (
        UPDATE api_keys SET revoked_at = now() + make_interval(secs => :overlap)
        WHERE id = :id AND revoked_at IS NULL AND {_IN_USE}
        RETURNING owner, name, scopes, requests_per_minute, tokens_per_minute, expires_at
    )
    INSERT INTO api_keys (id, key_hash, owner, name, scopes, requests_per_minute,
                          tokens_per_minute, expires_at)
    SELECT :new_id, :digest, given.* FROM given
    RETURNING {_COLUMNS}
""")
_USED = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = ANY(:ids)
      AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")


def add(conn: Connection, key: NewApiKey) -> ApiKey:
    """Store a new key."""
    require_storable(owner=key.owner, name=key.name)
    return _record(conn.execute(_ADD, asdict(key) | {"scopes": list(key.scopes)}).one())


def find(conn: Connection, key_id: str) -> ApiKey | None:
    """The key of this id, whatever its state."""
    row = conn.execute(_FIND, {"id": key_id}).one_or_none()
    return None if row is None else _record(row)


def list_keys(conn: Connection, owner: str | None = None) -> list[ApiKey]:
    """All keys, or an owner's, oldest first."""
    return [_record(row) for row in conn.execute(_LIST, {"owner": owner})]


def any_made(conn: Connection) -> bool:
    """Whether there was ever a key."""
    return bool(conn.execute(_ANY).scalar_one())


def any_in_use(conn: Connection) -> bool:
    """Whether there is a key that is accepted."""
    return bool(conn.execute(_ANY_IN_USE).scalar_one())


def revoke(conn: Connection, key_id: str) -> ApiKey | None:
    """End a key now; None where there is none. Idempotent: an earlier end stays."""
    row = conn.execute(_REVOKE, {"id": key_id}).one_or_none()
    return None if row is None else _record(row)


def rotate(
    conn: Connection, key_id: str, new_id: str, digest: bytes, overlap: float
) -> ApiKey | None:
    """Put a new key in a key's place, which ends after `overlap` seconds. None where there is none
    that is in use, or it has been rotated already."""
    given = {"id": key_id, "new_id": new_id, "digest": digest, "overlap": overlap}
    row = conn.execute(_ROTATE, given).one_or_none()
    return None if row is None else _record(row)


def note_used(conn: Connection, key_ids: Sequence[str]) -> None:
    """These were used just now; written at most once a minute for each."""
    conn.execute(_USED, {"ids": list(key_ids)})


def _record(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        owner=row.owner,
        name=row.name,
        digest=bytes(row.key_hash),
        scopes=tuple(row.scopes),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        seconds_left=None if row.seconds_left is None else float(row.seconds_left),
    )
