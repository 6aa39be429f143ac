"""`penstock annotate reproduce`: run an annotation again and count the rows that agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands.connection import URL, ApiKey, Url

if TYPE_CHECKING:
    from penstock.annotation.rounds.reproduce import Agreement, Reproduction


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)


def reproduce(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="OUT.manifest.json, beside its output.")
    ],
    table: Annotated[
        Path | None, typer.Option(help="The table, where it is no longer where it was.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Keep the new answers there; by default only the count.")
    ] = None,
    at_least: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows that has to agree.")
    ] = 1.0,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Run an annotation again from its manifest; say how many rows got the same answer.

    Another table or other weights are refused; other versions are named. The exit status is 0
    when enough rows agree.
    """
    from tempfile import TemporaryDirectory

    from penstock.annotation.rounds.annotated import annotated
    from penstock.annotation.rounds.manifest import output_path
    from penstock.annotation.rounds.reproduce import Reproduction

    first = annotated(output_path(manifest))
    with TemporaryDirectory(prefix="penstock-") as folder:
        target = output or Path(folder) / first.path.name
        plan = Reproduction(first, table or first.input_path, target)
        plan.check()
        agreement = _run(plan, url, api_key)
    _show(agreement, output)
    if agreement.share < at_least:
        raise typer.Exit(1)


def _run(plan: Reproduction, url: str, api_key: str | None) -> Agreement:
    from penstock.commands.annotation.rounds import running

    with running(url, api_key, "Its jobs are cancelled.") as (client, view):
        return plan.run(client, view)[1]


def _show(agreement: Agreement, output: Path | None) -> None:
    from penstock.annotation.rounds.reproduce import CLOSE

    typer.echo(
        f"{agreement.agree:,} of {agreement.rows:,} rows have the same answer, "
        f"{agreement.close:,} of them with the same other cells (numbers within {CLOSE:.5f}); "
        f"{agreement.tokens:,} took as many tokens."
    )
    if agreement.farthest:
        typer.echo(f"Probabilities differ by at most {agreement.farthest:.2g}.")
    if agreement.places:
        typer.echo(f"The first that differ: {', '.join(agreement.places)}.")
    if output is not None:
        typer.echo(f"Written to {output}")
