"""Webhook endpoints of owners: where events go, which, and the secrets that sign them.

Each owner has one more, without a URL, that signs for the `callback_url` of jobs. Secrets are kept
as they are, since every signature needs them: they leave this module when they are made, and for
the sender. Knows nothing of what a URL may be.
"""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from penstock.errors import Conflict
from penstock.ids import new_id
from storage import receivers
from storage.service_tables import webhook_endpoints

#: What can be told of a job. Its final status is the last part.
EVENTS: Final = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
#: The id, for its owner, of the endpoint that signs for `callback_url`.
CALLBACKS: Final = "callbacks"
MAX_ENDPOINTS: Final = 20  #: of one owner
SECRET_BYTES: Final = 32
OVERLAP: Final = 86_400  #: seconds that both secrets sign after a rotation

# An owner's posts of one moment are counted one by one.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(:class, hashtext(:owner))")
_LOCK_CLASS: Final = 0x57484F4B  # "WHOK"
#: Without the secrets; of the one that signs now, its last characters.
_COLUMNS: Final[tuple[ColumnElement[Any], ...]] = (
    *(
        column
        for column in webhook_endpoints.c
        if column.name not in ("secret", "old_secret", "old_secret_until")
    ),
    func.right(func.encode(webhook_endpoints.c.secret, "base64"), 4).label("hint"),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """As its owner may see it. `hint`: the last characters of the secret."""

    id: str
    name: str
    url: str | None  #: None: that of each job
    events: tuple[str, ...]
    enabled: bool
    hint: str
    created_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """One that an owner asks for."""

    owner: str
    url: str
    events: tuple[str, ...] = EVENTS
    name: str = ""
    enabled: bool = True


def encode(secret: bytes) -> str:
    """A secret as receivers' libraries take it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def create(conn: Connection, new: NewEndpoint) -> tuple[Endpoint, str]:
    """Store an endpoint; with its secret, which is told this once. Raises `Conflict` when the
    owner has as many as there may be."""
    conn.execute(_LOCK_OWNER, {"class": _LOCK_CLASS, "owner": new.owner})
    table = webhook_endpoints.c
    own = select(func.count()).where(table.owner == new.owner, ~table.callbacks)
    if conn.execute(own).scalar_one() >= MAX_ENDPOINTS:
        raise Conflict(f"You have {MAX_ENDPOINTS} webhook endpoints; delete one first.")
    secret = secrets.token_bytes(SECRET_BYTES)
    row = conn.execute(
        insert(webhook_endpoints)
        .values(
            id=new_id("whe"),
            owner=new.owner,
            url=new.url,
            secret=secret,
            events=list(new.events),
            name=new.name,
            enabled=new.enabled,
        )
        .returning(*_COLUMNS)
    ).one()
    return _endpoint(row), encode(secret)


def ensure_callbacks(conn: Connection, owner: str) -> None:
    """The owner has the endpoint that signs for callbacks from now on."""
    table = webhook_endpoints.c
    found = select(table.id).where(table.owner == owner, table.callbacks)
    if conn.execute(found).first() is None:  # else each post would wait for another's commit
        conn.execute(
            upsert(webhook_endpoints)
            .values(
                id=new_id("whe"),
                owner=owner,
                url="",
                secret=secrets.token_bytes(SECRET_BYTES),
                events=list(EVENTS),
                callbacks=True,
            )
            .on_conflict_do_nothing(index_elements=["owner"], index_where=text("callbacks"))
        )


def get(conn: Connection, owner: str, endpoint_id: str) -> Endpoint | None:
    """None: unknown, or another owner's."""
    _ensure_named(conn, owner, endpoint_id)
    statement = select(*_COLUMNS).where(*_named(owner, endpoint_id))
    row = conn.execute(statement).one_or_none()
    return None if row is None else _endpoint(row)


def list_all(conn: Connection, owner: str) -> list[Endpoint]:
    """Newest first, without that of the callbacks."""
    table = webhook_endpoints.c
    rows = conn.execute(
        select(*_COLUMNS)
        .where(table.owner == owner, ~table.callbacks)
        .order_by(table.id.desc())
        .limit(MAX_ENDPOINTS)
    )
    return [_endpoint(row) for row in rows]


def update(
    conn: Connection, owner: str, endpoint_id: str, changes: Mapping[str, object]
) -> Endpoint | None:
    """Change `url`, `events`, `name` or `enabled`. None: unknown, or another owner's."""
    _ensure_named(conn, owner, endpoint_id)
    if changes:
        changed = conn.execute(
            webhook_endpoints.update()
            .where(*_named(owner, endpoint_id))
            .values(**changes, updated_at=func.now())
        )
        if changed.rowcount:
            receivers.unpause(conn, endpoint_id)
    return get(conn, owner, endpoint_id)


def rotate(
    conn: Connection, owner: str, endpoint_id: str, *, overlap: float
) -> tuple[Endpoint, str] | None:
    """Make a new secret; with it, told this once. The one of before signs, too, for `overlap`
    seconds. None: unknown, or another owner's."""
    _ensure_named(conn, owner, endpoint_id)
    secret = secrets.token_bytes(SECRET_BYTES)
    table = webhook_endpoints.c
    kept: dict[str, Any] = {"old_secret": None, "old_secret_until": None}
    if overlap:
        until = func.now() + dt.timedelta(seconds=overlap)
        kept = {"old_secret": table.secret, "old_secret_until": until}
    changed = conn.execute(
        webhook_endpoints.update()
        .where(*_named(owner, endpoint_id))
        .values(secret=secret, updated_at=func.now(), **kept)
    )
    found = get(conn, owner, endpoint_id) if changed.rowcount else None
    return None if found is None else (found, encode(secret))


def delete(conn: Connection, owner: str, endpoint_id: str) -> bool:
    """With its deliveries. False: unknown, or another owner's. Raises `Conflict` for that of the
    callbacks."""
    if endpoint_id == CALLBACKS:
        raise Conflict("The endpoint of the callbacks cannot be deleted; disable it.")
    gone = conn.execute(webhook_endpoints.delete().where(*_named(owner, endpoint_id)))
    return bool(gone.rowcount)


def _ensure_named(conn: Connection, owner: str, endpoint_id: str) -> None:
    """The one of the callbacks is there as soon as it is named."""
    if endpoint_id == CALLBACKS:
        ensure_callbacks(conn, owner)


def _named(owner: str, endpoint_id: str) -> Sequence[Any]:
    table = webhook_endpoints.c
    if endpoint_id == CALLBACKS:
        return (table.owner == owner, table.callbacks)
    return (table.id == endpoint_id, table.owner == owner, ~table.callbacks)


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=CALLBACKS if row.callbacks else row.id,
        name=row.name,
        url=None if row.callbacks else row.url,
        events=tuple(row.events),
        enabled=row.enabled,
        hint=row.hint,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
