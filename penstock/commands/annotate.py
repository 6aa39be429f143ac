"""`penstock annotate`: ask a model about every row of a CSV or JSON Lines file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from penstock.commands.connection import URL, ApiKey, Url, check_model_name, connect

if TYPE_CHECKING:
    from penstock.annotation.plan import Plan
    from penstock.annotation.workflow import Summary

INTERRUPTED = 130  # exit status after Ctrl-C
Mode = Literal["generate", "score"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(annotate)


def annotate(
    table: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .csv, .tsv, .jsonl or .ndjson file.")
    ],
    output: Annotated[Path, typer.Option(help="File to write, of the same kinds.")],
    template: Annotated[
        str,
        typer.Option(
            help="The question; {column} stands for a cell, {{ and }} for braces, "
            r"\n for a newline, \t for a tab, \\ for a backslash."
        ),
    ],
    choices: Annotated[
        str | None, typer.Option(help="The allowed answers: a,b,c. {choices} stands for them.")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="With --choices: `score` weighs them all and tells the probability of the best; "
            "`generate` lets the model write one of them."
        ),
    ] = "score",
    system: Annotated[str | None, typer.Option(help="System prompt of all rows.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most new tokens of an answer.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answers.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends an answer; up to four times.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="By default the one that is served.")] = None,
    answer_column: Annotated[str, typer.Option(help="Name of the new column.")] = "answer",
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Cancel the unfinished job of an earlier run, start anew."),
    ] = False,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Ask a model about every row of a table, in one durable job.

    The output has the input's columns, `answer` and `error`; with --choices `probability`, too.

    After Ctrl-C the job goes on by itself; the same command picks it up.
    """
    from penstock.annotation.plan import AnswerColumns, Plan, parse_choices
    from penstock.annotation.template import unescape

    check_model_name(model)
    given = {"system": system, "seed": seed, "stop": stop, "model": model}
    plan = Plan(
        input=table,
        output=output,
        template=unescape(template),
        choices=parse_choices(choices) if choices is not None else (),
        mode=mode,
        fields={
            "max_tokens": max_tokens,
            "temperature": temperature,
            **{name: value for name, value in given.items() if value is not None},
        },
        columns=AnswerColumns(answer_column),
        fresh=fresh,
    )
    plan.check()
    summary = _run(plan, url, api_key)
    _show(summary, with_choices=bool(plan.choices))
    if summary.problem is not None:
        typer.echo(f"penstock: {summary.problem}", err=True)
        raise typer.Exit(1)


def _run(plan: Plan, url: str, api_key: str | None) -> Summary:
    from penstock.annotation.progress import ProgressView
    from penstock.annotation.workflow import Annotation

    view = ProgressView(Console(stderr=True))
    with connect(url, api_key, view.away) as client:
        annotation = Annotation(plan, client, view)
        try:
            with view:
                return annotation.run()
        except KeyboardInterrupt:
            typer.echo(_farewell(annotation.request_id), err=True)
            raise typer.Exit(INTERRUPTED) from None


def _farewell(request_id: str | None) -> str:
    if request_id is None:
        return "Interrupted. The same command goes on where this one was."
    return (
        f"Interrupted. Job {request_id} goes on by itself; the same command picks it up, "
        f"`penstock status {request_id}` shows it."
    )


def _show(summary: Summary, *, with_choices: bool) -> None:
    from penstock.annotation.plan import counted

    rows = f"{counted(summary.rows)}, {summary.failed:,} failed"
    if with_choices:
        rows += f", {summary.outside:,} outside the choices"
    tokens = f"{summary.prompt_tokens:,} tokens in, {summary.completion_tokens:,} out"
    typer.echo(f"{rows}; {tokens}; {summary.seconds:,.1f} s")
    typer.echo(f"Written to {summary.output}")
