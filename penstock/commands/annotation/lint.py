"""`penstock annotate lint`: what is wrong, how long and how costly a run will be, without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.commands.annotation import options as given
from penstock.commands.connection import URL, ApiKey, Url, connect
from penstock.errors import InvalidRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(lint)


def lint(
    table: given.TableArgument,
    task: given.TaskFile = None,
    template: given.Template = None,
    labels: given.Labels = None,
    several: given.Several = None,
    mode: given.ModeOption = None,
    fields: given.Fields = None,
    system: given.System = None,
    model: given.Model = None,
    gold: given.Gold = None,
    review_below: given.ReviewBelow = None,
    max_tokens: given.MaxTokens = None,
    temperature: given.Temperature = None,
    seed: given.Seed = None,
    set: given.Set = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Count the tokens of so many rows, drawn at random; else of all."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(help="Predict time, tokens and energy by running up to 192 sampled rows."),
    ] = True,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.")
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Look at a table and a task before the run: prompts, tokens, mistakes, time, energy.

    Leaves with 1 where the run would be refused.
    """
    from penstock.annotation.lint.html import write_page
    from penstock.annotation.lint.lint import Options
    from penstock.annotation.lint.lint import lint as look
    from penstock.annotation.lint.terminal import show
    from penstock.annotation.table.source import source_of

    asked = given.task_of(
        task,
        template,
        labels,
        several,
        mode,
        fields,
        system,
        model,
        gold,
        review_below,
        max_tokens,
        temperature,
        seed,
        set,
    )
    source = source_of(table)
    if html is not None:
        _check_page(html, table)
    with (
        connect(url, api_key) as client,
        Console(stderr=True).status("Reading") as status,
    ):
        found = look(
            source,
            asked,
            client,
            Options(rows, measure),
            lambda count: status.update(f"Reading, {count:,} rows"),
            lambda count: status.update(f"Counting tokens, {count:,} rows"),
        )
    show(found, Console(highlight=False))
    if html is not None:
        write_page(found, asked.name, html)
        typer.echo(f"Written to {html}")
    if not found.sound:
        raise typer.Exit(1)


def _check_page(html: Path, table: Path) -> None:
    """Before anything is measured."""
    if html.resolve() == table.resolve():
        raise InvalidRequest("--html names the table itself.", param="html")
    if not html.parent.is_dir():
        raise InvalidRequest(f"--html: {html.parent} is no folder.", param="html")
