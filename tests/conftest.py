"""Real PostgreSQL and Redis for every test that asks; started once, stopped at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from storage.database import Database
from tests.support.postgres import PostgresServer, postgres
from tests.support.redis import flush, redis_server

# What a process logs that nobody configured: structlog's own choice draws every local variable of a
# traceback, which takes seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-examples", type=int, help="Requests of each kind to each route; few by default."
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database of the test's own."""
    with postgres_server.migrated_database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    with redis_server() as socket:
        yield socket


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    """An empty Redis, as Celery and the settings write it: `redis+socket:///path`."""
    flush(redis_socket)
    return f"redis+socket://{redis_socket}"
