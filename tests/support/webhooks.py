"""Webhooks in tests: endpoints, jobs that end, and deliveries as they stand."""

from __future__ import annotations

from sqlalchemy import text

from storage import deliveries, delivery_log, endpoints, lifecycle
from storage.database import Database
from storage.deliveries import Claimed
from storage.delivery_log import Delivery
from storage.endpoints import Endpoint, NewEndpoint
from storage.records import Batch
from tests.support import jobs

LEASE = 60.0
URL = "https://hooks.example/in"


def add_endpoint(
    database: Database, url: str = URL, *, owner: str = jobs.OWNER, **changes: object
) -> tuple[Endpoint, str]:
    new = NewEndpoint(owner, url, **changes)  # type: ignore[arg-type]
    with database.begin() as conn:
        return endpoints.create(conn, new)


def end_job(database: Database, callback_url: str | None = None, **changes: object) -> Batch:
    """A job that has completed."""
    batch = jobs.store(database, 1, callback_url=callback_url, **changes)
    jobs.run_all(database)
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
    return batch


def claim(
    database: Database,
    limit: int = 100,
    after: str = "",
    lease: float = LEASE,
    share: int = 1_000,
) -> tuple[list[Claimed], str]:
    with database.begin() as conn:
        return deliveries.claim(conn, after=after, limit=limit, share=share, lease=lease)


def log(database: Database, owner: str = jobs.OWNER, **which: str) -> list[Delivery]:
    """Oldest first."""
    with database.begin() as conn:
        return delivery_log.list_all(conn, owner, limit=1_000, **which)[::-1]


def make_due(database: Database) -> None:
    """Whatever waits for its next attempt waits no longer, and no receiver rests."""
    with database.begin() as conn:
        conn.execute(text("DELETE FROM webhook_receivers"))
        conn.execute(text("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'pending'"))
