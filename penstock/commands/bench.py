"""`penstock bench`: a load test of any server with an OpenAI-compatible API, or of Penstock's."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.loadtest.plan import Plan
    from penstock.loadtest.prompts import Lengths, Prompt
    from penstock.loadtest.runner import LoadTest

CLIENTS, MOST_OPEN = 8, 256
INTERRUPTED = 130  # exit status after Ctrl-C
Api = Literal["openai", "penstock"]
Kind = Literal["chat", "job"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    url: Annotated[str, typer.Argument(help="The server, with or without /v1.")],
    api: Annotated[
        Api | None, typer.Option(help="By default OpenAI's where the server has it.")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="Streamed chats, or whole jobs of prompts.")] = "chat",
    concurrency: Annotated[
        int | None,
        typer.Option(
            help="Clients that ask one after another, 8 by default; with --rate: open requests at "
            "most, 256 by default."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second, at random, whether earlier ones have ended or not."),
    ] = None,
    count: Annotated[int | None, typer.Option(help="Requests, at most.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds in which requests are sent.")] = 30.0,
    warmup: Annotated[int, typer.Option(help="Requests before, which are not counted.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds of one request.")] = 120.0,
    model: Annotated[str | None, typer.Option(help="By default the first that is served.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt a line, or .jsonl; by default random words.")
    ] = None,
    prompt_words: Annotated[int, typer.Option(help="Mean length of a random prompt.")] = 100,
    max_tokens: Annotated[int, typer.Option(help="Mean of the answers' limits.")] = 128,
    spread: Annotated[
        float, typer.Option(help="Sigma of both lengths' log-normal distribution; 0: all equal.")
    ] = 0.6,
    temperature: Annotated[float, typer.Option(help="Of the answers.")] = 0.7,
    job_size: Annotated[int, typer.Option(help="Prompts of a job.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same prompts and moments.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, too.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw them there (needs matplotlib).")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=["PENSTOCK_API_KEY", "OPENAI_API_KEY"],
            show_envvar=True,
            help="Key for this server, better given by the environment.",
        ),
    ] = None,
) -> None:
    """Measure a server under load: throughput, time to first token, time per token, latency.

    Ctrl-C ends it early and shows what was measured so far.
    """
    from penstock.loadtest import picture
    from penstock.loadtest.plan import Plan
    from penstock.loadtest.prompts import Lengths

    if plot is not None:
        picture.check(plot)
    plan = Plan(
        kind=kind,
        concurrency=_concurrency(concurrency, rate),
        rate=rate,
        count=count,
        duration=duration,
        timeout=timeout,
        warmup=warmup,
        job_size=job_size,
        temperature=temperature,
        seed=seed,
    )
    plan.check()
    source = _prompts(prompts, Lengths(prompt_words, max_tokens, spread), seed)
    console = Console(highlight=False)
    server = _Server(url, api, model, api_key)
    test, name = asyncio.run(_measure(plan, source, server, console))
    _tell(console, plan, test, name, (json_file, plot))
    if test.stop.is_set():
        raise typer.Exit(INTERRUPTED)


def _concurrency(asked: int | None, rate: float | None) -> int:
    if asked is not None:
        return asked
    return CLIENTS if rate is None else MOST_OPEN


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    api: Api | None
    model: str | None
    api_key: str | None


def _prompts(file: Path | None, lengths: Lengths, seed: int) -> Iterator[Prompt]:
    from penstock.loadtest.prompts import drawn, of_file

    lengths.check()
    return drawn(lengths, seed) if file is None else of_file(file, lengths, seed)


async def _measure(
    plan: Plan, prompts: Iterator[Prompt], server: _Server, console: Console
) -> tuple[LoadTest, str]:
    """The test after its end, and what was tested."""
    from penstock.loadtest.probing import reaching
    from penstock.loadtest.runner import LoadTest

    key, loop = server.api_key, asyncio.get_running_loop()
    async with reaching(server.url, server.api, server.model, key, plan) as (target, name):
        console.print(name, markup=False, soft_wrap=True)
        test = LoadTest(plan, target, prompts)
        loop.add_signal_handler(signal.SIGINT, test.stop.set)
        try:
            with Console(stderr=True).status("measuring; Ctrl-C ends it and shows the figures"):
                await test.run()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
    return test, name


def _tell(
    console: Console, plan: Plan, test: LoadTest, name: str, files: tuple[Path | None, Path | None]
) -> None:
    from penstock.loadtest import picture, report
    from penstock.loadtest.summary import summarize

    json_file, plot = files
    summary = summarize(test.samples, late=test.late, interrupted=test.stop.is_set())
    report.show(console, summary, test.samples, plan.kind)
    if json_file is not None:
        figures = {"target": name, "plan": asdict(plan), "summary": asdict(summary)}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    if plot is not None and picture.is_possible():
        picture.draw(test.samples, name, plot)
    elif plot is not None:
        typer.echo("There is no picture: matplotlib is not installed (penstock[bench]).", err=True)
