"""What senders and owners ask all the time reads a few rows, however many deliveries are stored and
whatever PostgreSQL believes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from storage import deliveries, delivery_log, endpoints
from storage.database import Database
from tests.support import jobs
from tests.support.postgres import PostgresServer
from tests.support.webhooks import add_endpoint, end_job

MOST = 1_000  #: rows and index entries that one call may read
#: Delivered ones, and a long backlog of one receiver that is dead, before the others in the ring.
STORED = text("""
    INSERT INTO webhook_deliveries
        (id, endpoint_id, event, payload, state, owner, batch_id, receiver, next_at)
    SELECT 'whd_0' || state || n, :endpoint, 'batch.completed', '{}', state, :owner,
           'batch_' || n, receiver, now()
    FROM generate_series(1, 15000) n,
         (VALUES ('delivered', 'z'), ('pending', '0')) AS kinds(state, receiver)
""")
BUSY = text("""
    UPDATE webhook_deliveries SET state = 'delivering', lease_until = now() + interval '1h'
    WHERE id IN ('whd_0pending1', 'whd_0pending2')
""")
READS = text("""
    SELECT t.seq_tup_read + sum(i.idx_tup_read)
    FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
    WHERE t.relname = 'webhook_deliveries' GROUP BY t.seq_tup_read
""")


@pytest.fixture(scope="module", params=["before ANALYZE", "after ANALYZE"])
def long_log(
    postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[tuple[Database, str]]:
    """On one connection; with the id of an endpoint that has a few of its own."""
    with postgres_server.migrated_database() as url:
        database = Database(url, pool_size=1)
        dead, _ = add_endpoint(database)
        endpoint, _ = add_endpoint(database)
        with database.begin() as conn:
            conn.execute(STORED, {"endpoint": dead.id, "owner": jobs.OWNER})
            conn.execute(BUSY)
            if request.param == "after ANALYZE":
                conn.execute(text("ANALYZE"))
        end_job(database)
        yield database, endpoint.id
        database.close()


def _reads(database: Database) -> int:
    with database.begin() as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as conn:
        return int(conn.execute(READS).scalar_one())


def _read_by(database: Database, work: Callable[[Connection], Any]) -> int:
    before = _reads(database)
    with database.begin() as conn:
        work(conn)
    return _reads(database) - before


def test_what_senders_and_owners_ask_reads_few_rows(long_log: tuple[Database, str]) -> None:
    database, endpoint_id = long_log
    with database.begin() as conn:
        claimed, _ = deliveries.claim(conn, limit=16, share=16, lease=60)
        assert endpoint_id in {delivery.endpoint_id for delivery in claimed}
        delivery = claimed[-1]
        conn.rollback()
    failed = deliveries.Attempt(delivered=False)

    def claim_and_settle(conn: Connection) -> None:
        again, _ = deliveries.claim(conn, limit=16, share=16, lease=60)
        for one in again:
            assert deliveries.settle(conn, one, failed) is not None

    steps: dict[str, Callable[[Connection], Any]] = {
        "claim and settle": claim_and_settle,
        "free lost": deliveries.free_lost,
        "delete old": lambda conn: deliveries.delete_old(conn, 3_600),
        "record": lambda conn: deliveries.record(conn, [delivery.batch_id]),
        "outcomes": deliveries.outcomes,
        "disable": lambda conn: deliveries.disable(conn, endpoint_id),
        "page": lambda conn: delivery_log.list_all(conn, jobs.OWNER, limit=20),
        "of an endpoint": lambda conn: delivery_log.list_all(
            conn, jobs.OWNER, endpoint_id=endpoint_id, limit=20
        ),
        "of a job": lambda conn: delivery_log.list_all(
            conn, jobs.OWNER, batch_id=delivery.batch_id, limit=20
        ),
        "redeliver": lambda conn: delivery_log.redeliver(conn, jobs.OWNER, "whd_0delivered1"),
        "endpoints": lambda conn: endpoints.list_all(conn, jobs.OWNER),
    }

    read = {name: _read_by(database, work) for name, work in steps.items()}
    assert {name: rows for name, rows in read.items() if rows > MOST} == {}


@pytest.mark.parametrize(
    "index", ["ix_webhook_deliveries_turn", "ix_webhook_deliveries_created_at"]
)
def test_the_loss_of_an_index_would_show(long_log: tuple[Database, str], index: str) -> None:
    def without(conn: Connection) -> None:
        conn.execute(text(f"DROP INDEX {index}"))
        deliveries.claim(conn, limit=16, share=16, lease=60)
        deliveries.delete_old(conn, 3_600)
        conn.rollback()

    assert _read_by(long_log[0], without) > MOST
