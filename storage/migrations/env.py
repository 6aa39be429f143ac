"""Alembic's entry. Runs on the connection it is given, else on PENSTOCK_DATABASE__URL.

A composition root. An advisory lock lets one migrator through at a time. Each migration is a
transaction of its own that waits for a lock only briefly, for all who come after it wait behind
it; then it is tried again. README.md says what a migration may do.
"""

from __future__ import annotations

import time

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, exc, text

from penstock.settings import Settings
from penstock.telemetry import get_logger
from storage.database import sqlalchemy_url, sqlstate
from storage.service_tables import metadata
from storage.table_locks import LOCK_NOT_AVAILABLE

log = get_logger(__name__)

_LOCK_KEY = 7_366_800_001
_OTHER_MIGRATOR = 300.0  # seconds to wait for it
_LOOK = 0.2  # seconds between two looks
_LOCK_TIMEOUT = 2.0  # seconds; writers of the service give up after ten
_PATIENCE = 240.0  # seconds of trying again
_MAX_PAUSE = 5.0  # seconds


def _migrate(connection: Connection) -> None:
    """What is done stays done; a migration that found a table in use begins again."""
    _await_turn(connection)
    _limit_locks(connection, _LOCK_TIMEOUT)
    deadline = time.monotonic() + _PATIENCE
    pause = 0.5
    while True:
        try:
            _run(connection)
            return
        except exc.OperationalError as error:
            in_use = sqlstate(error) == LOCK_NOT_AVAILABLE
            if not in_use or time.monotonic() > deadline:
                raise
            connection.rollback()
            log.info("migration.postponed", seconds=pause)
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)


def _await_turn(connection: Connection) -> None:
    """Take the migrators' lock, which is held until the connection ends. Asked for again and again:
    a statement that waits for it has a snapshot, and whoever builds an index waits for those."""
    deadline = time.monotonic() + _OTHER_MIGRATOR
    ask = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(ask, {"key": _LOCK_KEY}).scalar_one():
        connection.commit()
        if time.monotonic() > deadline:
            raise CommandError("Another migration is under way, and does not end.")
        time.sleep(_LOOK)
    connection.commit()


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


def _limit_locks(connection: Connection, seconds: float) -> None:
    connection.execute(text(f"SET lock_timeout = '{seconds * 1000:.0f}ms'"))
    connection.commit()


def _connect_and_migrate() -> None:
    url = Settings().database.url
    if url is None:
        raise CommandError("Set PENSTOCK_DATABASE__URL to the database that is to be migrated.")
    engine = create_engine(sqlalchemy_url(url.get_secret_value()), poolclass=NullPool)
    with engine.connect() as connection:
        _migrate(connection)


given = context.config.attributes.get("connection")
if given is None:
    _connect_and_migrate()
else:
    _migrate(given)
