"""What `run` and `pilot` have in common: the client, the progress, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from penstock.commands.connection import connect

if TYPE_CHECKING:
    from penstock.annotation.records import Summary
    from penstock.annotation.run.annotation import Annotation, Options
    from penstock.annotation.task.task import Task

INTERRUPTED = 130  # exit status after Ctrl-C


def run_task(
    table: Path, output: Path, task: Task, options: Options, url: str, api_key: str | None
) -> None:
    """Run it, show its progress and its sums; leave with 1 where not all jobs completed."""
    from penstock.annotation.run.annotation import Annotation
    from penstock.annotation.run.ledger import ledger_path
    from penstock.annotation.run.progress import ProgressView
    from penstock.annotation.table.sink import sink_of
    from penstock.annotation.table.source import source_of

    source = source_of(table)
    sink_of(output, source, task.columns)  # refuses what it cannot write, before it connects
    view = ProgressView(Console(stderr=True))
    with connect(url, api_key, view.away) as client:
        annotation = Annotation(source, task, client, view, ledger_path(output), options)
        try:
            with view:
                summary = annotation.run(lambda: sink_of(output, source, annotation.task.columns))
        except KeyboardInterrupt:
            typer.echo(_farewell(annotation, cancelled=options.cancel), err=True)
            raise typer.Exit(INTERRUPTED) from None
    _show(summary, output)


def _farewell(annotation: Annotation, *, cancelled: bool) -> str:
    ledger = annotation.ledger
    posted = [] if ledger is None else ledger.request_ids
    if ledger is None or not posted:
        return "Interrupted. The same command goes on where this one was."
    if cancelled:
        return "Interrupted; its jobs are cancelled. The same command goes on where they were."
    one = len(posted) == 1
    jobs = (
        f"Job {posted[0]} goes on by itself" if one else f"{len(posted)} jobs go on by themselves"
    )
    return (
        f"Interrupted. {jobs}; the same command picks up from any terminal, and "
        "`penstock annotate partial` writes what there is."
    )


def _show(summary: Summary, output: Path) -> None:
    receipt = summary.receipt
    rows = "1 row" if summary.rows == 1 else f"{summary.rows:,} rows"
    typer.echo(
        f"{rows}, {summary.failed:,} failed, {summary.review:,} for review; "
        f"{receipt.prompt_tokens:,} tokens in, {receipt.completion_tokens:,} out; "
        f"{receipt.seconds:,.1f} s"
    )
    if (sure := summary.accuracy) is not None:
        typer.echo(f"Accuracy on gold {sure.middle:.1%} ({sure.low:.1%} to {sure.high:.1%})")
    typer.echo(f"Written to {output}")
    if summary.problem is not None:
        typer.echo(f"penstock: {summary.problem}", err=True)
        raise typer.Exit(1)
