"""The health check of a container: `python -m deploy.health api|flower|worker|dispatcher`.

Exit status 0 when the process of this container does its part. Bounded in time.
"""

from __future__ import annotations

import sys

from penstock.errors import Unavailable
from penstock.settings import Settings
from penstock.stack.probe import get
from storage import fleet, reading
from storage.database import Database


def _api(settings: Settings) -> bool:
    return get(settings.api.host, settings.api.port, "/healthz") is not None


def _flower(settings: Settings) -> bool:
    return get(settings.flower.host, settings.flower.port, "/healthcheck") is not None


def _worker(settings: Settings) -> bool:
    """Its heartbeat is in the database."""
    with _database(settings).begin() as conn:
        return any(worker.slot == settings.worker.slot for worker in fleet.workers(conn))


def _dispatcher(settings: Settings) -> bool:
    """It can look at the queue. One on standby does no more than that."""
    with _database(settings).begin() as conn:
        reading.ready_lanes(conn, limit=1)
    return True


def _database(settings: Settings) -> Database:
    if settings.database.url is None:
        raise Unavailable("PENSTOCK_DATABASE__URL is not set.")
    return Database(settings.database.url.get_secret_value(), pool_size=1, statement_timeout=5)


CHECKS = {"api": _api, "flower": _flower, "worker": _worker, "dispatcher": _dispatcher}


def main(role: str) -> int:
    """The exit status for one role."""
    try:
        return 0 if CHECKS[role](Settings()) else 1
    except Unavailable:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
