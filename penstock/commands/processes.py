"""One process each: `serve`, `worker`, `dispatch`, `migrate`, `flower`, against two URLs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import typer

from penstock.commands.config import (
    check_exposure,
    check_flower_exposure,
    load_settings,
    require_broker,
    require_database,
)
from penstock.errors import StackError, Unavailable


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "One process each"
    for command in COMMANDS:
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
    from sqlalchemy.exc import SQLAlchemyError

    from storage.migrate import upgrade

    try:
        upgrade(url)
    except SQLAlchemyError as error:
        raise Unavailable(
            f"The database cannot be migrated: {_reason(error, url)}. "
            "PENSTOCK_DATABASE__URL names it."
        ) from error


def flower() -> None:
    """Run Flower, the read-only view of the workers."""
    settings = load_settings()
    broker = require_broker(settings)
    check_flower_exposure(settings)
    from penstock.stack.flower import run

    run(settings, broker)


def _reason(error: Exception, url: str) -> str:
    """The first line of what the driver said, without the password of `url`."""
    words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    with suppress(ValueError):
        if password := urlsplit(url).password:
            words = words.replace(unquote(password), "***").replace(password, "***")
    return words.rstrip(".") or type(error).__name__


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


COMMANDS = (serve, worker, dispatch, migrate, flower)
