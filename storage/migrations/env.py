"""Alembic's entry. Runs on the connection it is given, else on PENSTOCK_DATABASE__URL.

A composition root. An advisory lock lets one migrator through at a time.
"""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text

from penstock.settings import Settings
from storage.database import sqlalchemy_url
from storage.tables import metadata

_LOCK_KEY = 7_366_800_001
_LOCK_TIMEOUT = "60s"


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        context.run_migrations()


def _connect_and_migrate() -> None:
    url = Settings().database.url
    if url is None:
        raise CommandError("Set PENSTOCK_DATABASE__URL to the database that is to be migrated.")
    engine = create_engine(sqlalchemy_url(url.get_secret_value()), poolclass=NullPool)
    with engine.begin() as connection:
        _migrate(connection)


given = context.config.attributes.get("connection")
if given is None:
    _connect_and_migrate()
else:
    _migrate(given)
