"""Deliveries as their owner reads them, and sending one again. Knows no sender."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, FromClause, Row, Select, func, insert, literal, select

from penstock.errors import Conflict
from penstock.ids import new_id
from storage import receivers
from storage.endpoints import CALLBACKS
from storage.service_tables import webhook_deliveries, webhook_endpoints
from storage.states import DeliveryState

_SENT_AGAIN = ("owner", "batch_id", "endpoint_id", "event", "payload", "url", "receiver")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to one receiver, as it stands."""

    id: str
    event_id: str
    event: str
    batch_id: str
    endpoint_id: str
    url: str
    state: DeliveryState
    attempts: int
    status_code: int | None
    last_error: str | None
    next_at: dt.datetime | None  #: None where no attempt follows
    created_at: dt.datetime
    ended_at: dt.datetime | None


def list_all(
    conn: Connection,
    owner: str,
    *,
    endpoint_id: str | None = None,
    batch_id: str | None = None,
    after: str | None = None,
    limit: int,
) -> list[Delivery]:
    """The owner's deliveries, newest first, those that are older than `after`."""
    table, endpoint = webhook_deliveries.c, webhook_endpoints.c
    page = select(webhook_deliveries).order_by(table.id.desc()).limit(limit)
    if endpoint_id == CALLBACKS:
        own = select(endpoint.id).where(endpoint.owner == owner, endpoint.callbacks)
        page = page.where(table.endpoint_id == own.scalar_subquery())
    elif endpoint_id is not None:
        page = page.where(table.endpoint_id == endpoint_id)
    if batch_id is not None:
        page = page.where(table.batch_id == batch_id)
    if endpoint_id is None and batch_id is None:
        page = page.where(table.owner == owner)
    if after is not None:
        page = page.where(table.id < after)
    # One condition in there, so that its index is taken; whose they are is looked at out here.
    found = page.subquery("found")
    rows = conn.execute(_deliveries(found, owner).order_by(found.c.id.desc()))
    return [_delivery(row) for row in rows]


def get(conn: Connection, owner: str, delivery_id: str) -> Delivery | None:
    """None: unknown, or another owner's."""
    statement = _deliveries(webhook_deliveries, owner).where(webhook_deliveries.c.id == delivery_id)
    row = conn.execute(statement).one_or_none()
    return None if row is None else _delivery(row)


def redeliver(conn: Connection, owner: str, delivery_id: str) -> Delivery | None:
    """Send the event again: the same one, with days of attempts of its own, as a new delivery; one
    that is pending anyway is due now. None: unknown, or another owner's.

    Raises `Conflict` where it is being sent at this moment, or its endpoint is disabled.
    """
    table, endpoint = webhook_deliveries.c, webhook_endpoints.c
    row = conn.execute(
        select(table.state, table.receiver, endpoint.enabled)
        .join(webhook_endpoints, endpoint.id == table.endpoint_id)
        .where(table.id == delivery_id, table.owner == owner)
        .with_for_update(of=webhook_deliveries)
    ).one_or_none()
    if row is None:
        return None
    if not row.enabled:
        raise Conflict("The endpoint is disabled; enable it first.")
    if row.state == DeliveryState.DELIVERING:
        raise Conflict("It is being delivered at this moment.")
    receivers.unpause(conn, row.receiver)
    if row.state == DeliveryState.PENDING:
        conn.execute(
            webhook_deliveries.update()
            .where(table.id == delivery_id)
            .values(next_at=func.clock_timestamp())
        )
        return get(conn, owner, delivery_id)
    fresh = new_id("whd")
    copied = [table[name] for name in _SENT_AGAIN]
    conn.execute(
        insert(webhook_deliveries).from_select(
            ["id", "state", *_SENT_AGAIN],
            select(literal(fresh), literal(DeliveryState.PENDING.value), *copied).where(
                table.id == delivery_id
            ),
        )
    )
    return get(conn, owner, fresh)


def _deliveries(found: FromClause, owner: str) -> Select[Any]:
    """Those of `found` that are the owner's, as `_delivery` reads them."""
    table, endpoint = found.c, webhook_endpoints.c
    return (
        select(
            table.id,
            table.payload["id"].astext.label("event_id"),
            table.event,
            table.batch_id,
            table.endpoint_id,
            endpoint.callbacks,
            func.coalesce(table.url, endpoint.url).label("url"),
            table.state,
            table.attempts,
            table.status_code,
            table.last_error,
            table.next_at,
            table.created_at,
            table.ended_at,
        )
        .join_from(found, webhook_endpoints, endpoint.id == table.endpoint_id)
        .where(endpoint.owner == owner)
    )


def _delivery(row: Row[Any]) -> Delivery:
    values = dict(row._mapping)
    if values.pop("callbacks"):
        values["endpoint_id"] = CALLBACKS
    values["state"] = DeliveryState(row.state)
    if row.state != DeliveryState.PENDING:
        values["next_at"] = None
    return Delivery(**values)
