"""`penstock annotate run`: ask a model about every row of a table."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.commands.annotation import options as given
from penstock.commands.connection import URL, ApiKey, Url


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    table: given.TableArgument,
    output: given.OutputOption,
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
    promote: Annotated[
        bool, typer.Option("--promote", help="Go on with the pilot; no row is run twice.")
    ] = False,
    stop_if: Annotated[
        str | None,
        typer.Option(
            help='Cancel the rest when this is sure: "accuracy < 0.8"; also failed, review.'
        ),
    ] = None,
    cancel: given.Cancel = False,
    fresh: given.Fresh = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the prompts again that failed before.")
    ] = False,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Ask a model about every row of a table, in durable jobs.

    The output has the table's rows in their order, with what was found beside them.

    After Ctrl-C the jobs go on by themselves; the same command picks them up.
    """
    from penstock.annotation.run.annotation import Options
    from penstock.annotation.task.stop import StopRule
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
    how = Options(
        fresh=fresh,
        cancel=cancel,
        stop_if=None if stop_if is None else StopRule.parse(stop_if),
        promote=promote,
        retry_failed=retry_failed,
    )
    run_task(table, output, asked, how, url, api_key)
