"""Bring a database to the newest schema, in process. `alembic upgrade head` does the same."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

from storage.database import sqlalchemy_url

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> None:
    """Migrate to the newest schema, also under a service that runs. Two processes at once wait for
    each other; idempotent. Not for two threads of one process: Alembic keeps its context in a
    global."""
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    config = _config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current(url: str) -> str | None:
    """The schema's revision; None where nothing was migrated yet."""
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
