"""`penstock annotate rerun`: ask again about some rows, by another prompt or model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.commands.annotation.options import assigned
from penstock.commands.connection import URL, ApiKey, Url, check_model_name

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rerun)


def rerun(
    table: Annotated[Path, typer.Argument(metavar="OUT", help="An annotated table.")],
    where: Annotated[
        str, typer.Option(help="Which rows: `needs_review`, `probability < 0.6 and not error`.")
    ],
    output: Annotated[Path, typer.Option(help="The table to write; OUT stays as it is.")],
    task: Annotated[Path | None, typer.Option(help="The new task; by default that of OUT.")] = None,
    template: Annotated[str | None, typer.Option(help="Another question (Jinja).")] = None,
    model: Annotated[str | None, typer.Option(help="Another model.")] = None,
    system: Annotated[str | None, typer.Option(help="Another system prompt.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value in the task: `sampling.temperature=0.7`."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of going on with this round.")
    ] = False,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Ask again about the rows that match; all others keep their answers.

    The column `round` of the new table says which round an answer is of. `diff` compares the two.
    """
    from penstock.annotation.rounds.annotated import annotated
    from penstock.annotation.rounds.rerun import Rerun
    from penstock.annotation.run.annotation import Options
    from penstock.annotation.task.expression import Expression
    from penstock.annotation.task.task import task_from
    from penstock.commands.annotation.rounds import running

    check_model_name(model)
    before = annotated(table)
    base: Path | Task = task or before.task
    overrides = {"template": template, "model": model, "system": system, **assigned(settings or [])}
    asked = task_from(base, **overrides)
    plan = Rerun(before, Expression.parse(where), where, asked, output, Options(fresh=fresh))
    plan.check()
    farewell = "Its jobs go on by themselves; the same command picks them up."
    with running(url, api_key, farewell) as (client, view):
        summary = plan.run(client, view)
    typer.echo(f"{summary.rows:,} rows asked again, {summary.failed:,} failed.")
    typer.echo(f"Written to {output}; `penstock annotate diff {table} {output}` compares.")
    if summary.problem is not None:
        typer.echo(f"penstock: {summary.problem}", err=True)
        raise typer.Exit(1)
