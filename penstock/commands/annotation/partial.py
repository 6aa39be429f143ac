"""`penstock annotate partial`: what there is of a run, at any time, from any terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.commands.connection import URL, ApiKey, Url, connect
from penstock.errors import InvalidRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(partial)


def partial(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The output that the run was given.")
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default OUT with .partial in its name.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Where the table is, if it was given as seen from elsewhere."),
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Write the rows of an unfinished run that are answered, in the order of the table.

    Probabilities are as they were scored: they are calibrated at the end of the run.
    """
    from penstock.annotation.run.partial import write_partial

    target = to or _beside(output)
    if target.resolve() == output.resolve():
        raise InvalidRequest("--to names the output of the run itself.", param="to")
    with connect(url, api_key) as client:
        live = write_partial(output, target, client, table)
    typer.echo(f"{live.done:,} of {live.total:,} rows, {live.failed:,} failed")
    typer.echo(f"Written to {target}")


def _beside(output: Path) -> Path:
    """`out.csv.gz` becomes `out.partial.csv.gz`."""
    stem, dot, endings = output.name.partition(".")
    return output.with_name(f"{stem}.partial{dot}{endings}")
