"""Real worker and dispatcher processes on a real PostgreSQL and a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import fleet
from storage.database import Database
from tests.support.waiting import until
from tests.support.workers import TIMING, Jobs, Processes


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def processes(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Processes]:
    environment = {
        "PENSTOCK_DATABASE__URL": database_url,
        "PENSTOCK_BROKER__URL": redis_url,
        "PENSTOCK_MODEL__NAME": "fake",
        "PENSTOCK_WORKER__SLOT": "test-0",
        "PENSTOCK_LOG__LEVEL": "INFO",
        **TIMING,
    }
    processes = Processes(environment, tmp_path)
    yield processes
    processes.end()


@pytest.fixture
def wait_for_worker(database: Database) -> Callable[[int], None]:
    """Wait until so many workers have registered and beat."""

    def wait(count: int = 1) -> None:
        def live() -> bool:
            with database.begin() as conn:
                return len(fleet.workers(conn, max_age=5)) >= count

        until(f"{count} live workers", live)

    return wait
