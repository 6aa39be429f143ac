"""What the commands of another round have in common: progress, a client, and Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from penstock.commands.connection import connect

if TYPE_CHECKING:
    from penstock.annotation.records import Count
    from penstock.annotation.run.progress import ProgressView
    from penstock.client import Client

INTERRUPTED = 130  # exit status after Ctrl-C


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """On a terminal, how many rows were looked at; elsewhere nothing."""
    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda rows: status.update(f"{what} … {rows:,} rows")


@contextmanager
def running(url: str, api_key: str | None, farewell: str) -> Iterator[tuple[Client, ProgressView]]:
    """A client, and a view that shows the run on the terminal. `farewell`: said after Ctrl-C."""
    from penstock.annotation.run.progress import ProgressView

    view = ProgressView(Console(stderr=True))
    with connect(url, api_key, view.away) as client:
        try:
            with view:
                yield client, view
        except KeyboardInterrupt:
            typer.echo(f"Interrupted. {farewell}", err=True)
            raise typer.Exit(INTERRUPTED) from None
