"""`penstock annotate pilot`: a sample first, which `run --promote` goes on with."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.commands.annotation import options as given
from penstock.commands.connection import URL, ApiKey, Url

MOST_ROWS = 5_000  # of a pilot; they are written one by one into the ledger


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(pilot)


def pilot(
    table: given.TableArgument,
    output: given.OutputOption,
    rows: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Rows to draw.")] = 200,
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
    cancel: given.Cancel = False,
    fresh: given.Fresh = False,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Run a sample of the rows, by gold label (up to half of it) and by length; report on it.

    The output has these rows alone; `run --promote` with the same options runs the others.
    """
    from penstock.annotation.run.annotation import Options
    from penstock.commands.annotation.report import show_report
    from penstock.commands.annotation.running import run_task

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
    how = Options(fresh=fresh, cancel=cancel, pilot_rows=rows)
    run_task(table, output, asked, how, url, api_key)
    show_report(output)
