"""`penstock annotate report`: what an annotated table says, in the terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.errors import InvalidRequest

UNCUT = 200  # columns, where no terminal says how many there are


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="An annotated table.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.")
    ] = None,
    gold: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the right answers.")
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its task, where no manifest lies beside the table."),
    ] = None,
) -> None:
    """Report on an annotated table: balance, gold, calibration, hardest rows, cost.

    Asks no service. Works on a table that is not finished, too.
    """
    if html is not None and html.resolve() == output.resolve():
        raise InvalidRequest("--html names the table itself.", param="html")
    show_report(output, html=html, gold=gold, task=task)


def show_report(
    output: Path, *, html: Path | None = None, gold: str | None = None, task: Path | None = None
) -> None:
    """Print the report of a table, and write its page."""
    from penstock.annotation.report.about import report_of
    from penstock.annotation.report.html import write_page
    from penstock.annotation.report.terminal import show
    from penstock.annotation.task.task import load_task

    with Console(stderr=True).status("Reading") as status:
        found = report_of(
            output,
            gold=gold,
            task=None if task is None else load_task(task),
            count=lambda rows: status.update(f"Reading, {rows:,} rows"),
        )
    show(found, _console())
    if html is not None:
        write_page(found, html)
        typer.echo(f"Written to {html}")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNCUT
    return console
