"""`penstock annotate export-review` and `import-review`: rows to people, and their answers back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ToolName = Literal["labelstudio", "argilla", "csv"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export-review")(export_review)
    app.command("import-review")(import_review)


def export_review(
    table: Annotated[Path, typer.Argument(metavar="OUT", help="An annotated table.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    to: Annotated[ToolName, typer.Option(help="For which tool.")],
    where: Annotated[
        str | None,
        typer.Option(help="Which rows, such as `probability < 0.6`; by default `needs_review`."),
    ] = None,
) -> None:
    """Write the rows that people should look at, with the model's answers as suggestions.

    Label Studio: tasks, and the labeling config beside them. Argilla: records, and the settings
    of their dataset. A CSV file has an empty column for each answer.
    """
    from penstock.annotation.rounds.annotated import annotated
    from penstock.annotation.rounds.review.exporting import export
    from penstock.annotation.rounds.review.tools import Tool
    from penstock.annotation.task.expression import Expression
    from penstock.commands.annotation.rounds import counting

    with counting("Looking for rows") as count:
        there = annotated(table)
        said = where or f'column("{there.task.prefix}needs_review")'
        done = export(there, Tool(to), file, Expression.parse(said), count)
    typer.echo(f"{done.rows:,} of {done.of:,} rows to review.")
    for path in done.files:
        typer.echo(f"Written to {path}")


def import_review(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the tool exported.")],
    table: Annotated[
        Path, typer.Argument(metavar="OUT", help="The annotated table that was exported.")
    ],
    from_: Annotated[ToolName, typer.Option("--from", help="From which tool.")],
    output: Annotated[Path, typer.Option(help="The table to write; OUT stays as it is.")],
    column: Annotated[str, typer.Option(help="The column for the people's answers.")] = "gold",
    into: Annotated[
        Path | None,
        typer.Option(help="The table that gets the column instead of OUT, such as its input."),
    ] = None,
) -> None:
    """Put people's answers beside their rows, as a column of gold.

    Where several people answered, what most of them say counts; a tie stays empty.
    """
    from penstock.annotation.rounds.annotated import annotated
    from penstock.annotation.rounds.review.importing import Import
    from penstock.annotation.rounds.review.tools import Tool
    from penstock.commands.annotation.rounds import counting

    with counting("Placing answers") as count:
        done = Import(file, Tool(from_), annotated(table), output, column, into, count).run()
    people = done.people
    typer.echo(
        f"{len(people.cells):,} rows answered, {people.skipped:,} skipped; "
        f"people disagreed about {people.disputed:,}, {people.tied:,} of them without a majority."
    )
    typer.echo(f"{done.gold:,} of {done.rows:,} rows have gold in {column!r} now.")
    typer.echo(f"Written to {output}")
