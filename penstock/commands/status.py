"""`penstock status`: the jobs of a service, or one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.commands.connection import URL, ApiKey, Url, connect

if TYPE_CHECKING:
    from penstock.schemas.batch import BatchResult, JobSummary, Progress

MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds
UNCUT = 10_000  # columns


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    request_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most jobs to list.")] = 20,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """List the jobs, newest first, or show one."""
    console = _console()
    with connect(url, api_key) as client:
        if request_id is not None:
            console.print(_one(client.job(request_id).status()))
            return
        jobs = client.jobs(limit=limit)
    console.print(_list(jobs) if jobs else "There are no jobs yet.")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:  # a program reads it: nothing is cut
        console.width = UNCUT
    return console


def _list(jobs: list[JobSummary]) -> Table:
    table = Table(box=None, pad_edge=False)
    # On a narrow screen the others give way: an id is there to be copied.
    for name, cells in (
        ("id", [job.request_id for job in jobs]),
        ("status", [job.status for job in jobs]),
        ("done", [_done(job.progress) for job in jobs]),
    ):
        table.add_column(name, no_wrap=True, min_width=max(map(len, [name, *cells])))
    table.add_column("model", overflow="ellipsis")
    table.add_column("age", no_wrap=True, justify="right")
    now = time.time()
    for job in jobs:
        table.add_row(
            job.request_id,
            job.status,
            _done(job.progress),
            escape(job.model),
            duration(now - job.created_at),
        )
    return table


def _one(job: BatchResult) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("id", job.request_id)
    table.add_row("status", job.status)
    table.add_row("done", _done(job.progress))
    tokens = job.usage
    table.add_row("tokens", f"{tokens.prompt_tokens:,} in, {tokens.completion_tokens:,} out")
    if job.eta_seconds is not None:
        table.add_row("left", duration(job.eta_seconds))
    if job.processing_time is not None:
        table.add_row("took", f"{job.processing_time:,.1f} s")
    for key, value in job.metadata.items():
        table.add_row(escape(key), escape(value))
    return table


def _done(progress: Progress) -> str:
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return f"{progress.completed + progress.failed:,}/{progress.total:,}{failed}"


def duration(seconds: float) -> str:
    """`90` as `1 min`."""
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
