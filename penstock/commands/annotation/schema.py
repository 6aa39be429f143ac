"""`penstock annotate schema`: the JSON schema of task files, for an editor that completes keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(schema)


def schema(
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default it is printed.")
    ] = None,
) -> None:
    """Print the JSON schema of task files."""
    from penstock.annotation.files import writing
    from penstock.annotation.task.schema import schema_text

    if output is None:
        typer.echo(schema_text(), nl=False)
        return
    with writing(output):
        output.write_text(schema_text(), encoding="utf-8")
    typer.echo(f"Written to {output}")
