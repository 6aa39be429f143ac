"""One process each: `serve`, `worker`, `dispatch`, `migrate`, `flower`, against two URLs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from penstock.commands.config import (
    check_exposure,
    check_flower_exposure,
    load_settings,
    require_broker,
    require_database,
)
from penstock.errors import StackError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "One process each"
    for command in (serve, worker, dispatch, migrate, flower):
        app.command(rich_help_panel=panel)(_needs_server(command))


def serve() -> None:
    """Run the HTTP API."""
    settings = load_settings()
    require_database(settings)
    require_broker(settings)
    check_exposure(settings)
    from api.app import serve as run

    run(settings)


def worker() -> None:
    """Run one GPU worker."""
    settings = load_settings()
    require_database(settings)
    require_broker(settings)
    from workers.runtime import run

    run(settings)


def dispatch() -> None:
    """Run the dispatcher: wake-ups, lost leases, deadlines, retention. One of several is active."""
    settings = load_settings()
    require_database(settings)
    require_broker(settings)
    from workers.dispatcher import run

    run(settings)


def migrate() -> None:
    """Bring the database to the newest schema."""
    url = require_database(load_settings())
    from storage.migrate import upgrade

    upgrade(url)


def flower() -> None:
    """Run Flower, the read-only view of the workers."""
    settings = load_settings()
    broker = require_broker(settings)
    check_flower_exposure(settings)
    from penstock.stack.flower import run

    run(settings, broker)


def _needs_server(command: Callable[[], None]) -> Callable[[], None]:
    from functools import wraps

    @wraps(command)
    def run() -> None:
        try:
            command()
        except ModuleNotFoundError as error:
            raise StackError(
                f"`penstock {command.__name__}` runs from a checkout or the image, with "
                f"pip install 'penstock[server,engine]': the module {error.name} is missing."
            ) from error

    return run
