"""`make chaos`: break everything at random for a while, then count what was lost.

The last line is JSON. Exit status 0: nothing was lost, repeated beyond the bound, or wrong.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from tests.chaos import report
from tests.chaos.clients import FINISHED, LAST_WORD, Book, Client
from tests.chaos.faults import Faults
from tests.chaos.races import Races
from tests.chaos.receivers import Receivers, listening
from tests.chaos.verdict import Verdict, judge, show
from tests.chaos.world import MODELS, World, database, world

CLIENTS = 6
OFTEN = {"kill worker": 4}  #: times as often as the others
QUIET_LIMIT = 180.0  #: seconds for what is left after the last fault


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for."""

    seconds: float
    seed: int
    workers: int
    model: str
    wanted: frozenset[str]


def main(
    seconds: Annotated[float, typer.Option(help="Of faults.")] = 120,
    seed: Annotated[int, typer.Option(help="The same faults in the same order.")] = 1,
    workers: Annotated[int, typer.Option(min=3, help="Workers.")] = 3,
    model: Annotated[str, typer.Option(help="`fake`, or `tiny`: a real engine.")] = "fake",
    faults: Annotated[str, typer.Option(help="Only these kinds, by comma.")] = "",
    record: Annotated[bool, typer.Option(help="Write RESULTS.md.")] = False,
) -> None:
    """Runs the storm, waits for the rest, and judges."""
    if model not in MODELS:
        raise typer.BadParameter(f"one of {', '.join(MODELS)}", param_hint="--model")
    wanted = frozenset(name.strip() for name in faults.split(",") if name.strip())
    run = Run(seconds, seed, workers, model, wanted)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        with listening() as receivers, world(Path(folder), workers=workers, model=model) as made:
            verdict = _judged(run, made, receivers, console)
            verdict.broken += [f"{name} would not end" for name in made.stop()]
        verdict.must("processes left behind", _left(made))
    show(verdict, console)
    if record:
        report.write(verdict, seconds=seconds, seed=seed, workers=workers, model=model)
    result = {"seed": seed, "seconds": seconds, "ok": not verdict.broken, **verdict.figures}
    sys.stdout.write(json.dumps({**result, "broken": verdict.broken}) + "\n")
    raise SystemExit(1 if verdict.broken else 0)


def _judged(run: Run, made: World, receivers: Receivers, console: Console) -> Verdict:
    truth = database(made)
    stopping = threading.Event()
    book = Book(echoes=run.model == "fake", callbacks=receivers.urls)
    storm = Faults(made, truth, random.Random(run.seed), stopping)
    url = str(made.state["api_url"])
    clients = [Client(url, book, 1_000 * run.seed + n, stopping) for n in range(CLIENTS + 1)]
    *posting, racing = clients
    races = Races(racing, book, storm.draw)
    kinds = {
        name: do
        for name, do in (storm.kinds() | races.kinds()).items()
        if not run.wanted or name in run.wanted
    }
    for client in posting:
        client.start()
    counts = _storm(storm, run.seconds, kinds, book, console)
    stopping.set()
    for thread in (*posting, *races.threads):
        thread.join(timeout=LAST_WORD + 60)
    storm.heal()
    waited = _await_quiet(storm, book, racing)
    receivers.await_taken(truth)
    verdict = judge(truth, book, storm, counts, made.logs())
    receivers.judge(verdict, truth, book)
    verdict.figures["from the last fault to the last outcome"] = f"{waited:.1f} s"
    truth.close()
    return verdict


def _storm(
    storm: Faults,
    seconds: float,
    kinds: dict[str, Callable[[], bool]],
    book: Book,
    console: Console,
) -> Counter[str]:
    """Every few seconds a fault, now and then two."""
    names = [name for name in sorted(kinds) for _ in range(OFTEN.get(name, 1))]
    counts: Counter[str] = Counter()
    began = time.monotonic()
    following = began + 3
    while (now := time.monotonic()) < began + seconds:
        if now >= following:
            following = now + storm.draw.choice([0.0, 1.0, 2.0, 3.0, 4.0])
            name = storm.draw.choice(names)
            if kinds[name]():
                counts[name] += 1
                jobs, open_jobs = len(book.jobs), len(book.open())
                console.print(
                    f"{now - began:6.1f} {name}; {jobs} jobs, {open_jobs} open", markup=False
                )
        storm.watch()
        time.sleep(0.1)
    return counts


def _await_quiet(storm: Faults, book: Book, reader: Client) -> float:
    """Read every job to its end. Returns the seconds that it took."""
    began = time.monotonic()
    waiting = list(book.jobs.values())  # those that ended, too: they may have been tried again
    while waiting and time.monotonic() < began + QUIET_LIMIT:
        storm.watch()
        for job in waiting:
            reader.read(job)
        waiting = book.open()
        time.sleep(0.2)
    for job in book.jobs.values():
        if job.status in FINISHED:
            reader.read(job)
    return time.monotonic() - began


def _left(made: World) -> int:
    """Processes that have this stack's folder in their command or their environment."""
    mark, count = str(made.up.data_dir), 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            count += any(mark in word for word in words)
    return count


if __name__ == "__main__":
    typer.run(main)
