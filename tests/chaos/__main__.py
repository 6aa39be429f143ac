"""`make chaos`: break everything at random for a while, then count what was lost.

The last line is JSON. Exit status 0: nothing was lost, repeated beyond the bound, or wrong.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from tests.chaos.clients import FINISHED, LAST_WORD, Book, Client
from tests.chaos.faults import Faults
from tests.chaos.verdict import judge, show
from tests.chaos.world import World, database, world

CLIENTS = 6
QUIET_LIMIT = 180.0  #: seconds for what is left after the last fault


def main(
    seconds: Annotated[float, typer.Option(help="Of faults.")] = 120,
    seed: Annotated[int, typer.Option(help="The same faults in the same order.")] = 1,
    workers: Annotated[int, typer.Option(min=3, help="Workers.")] = 3,
    faults: Annotated[str, typer.Option(help="Only these kinds, by comma.")] = "",
) -> None:
    """Runs the storm, waits for the rest, and judges."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        before = _ours()
        with world(Path(folder), workers=workers) as made:
            truth = database(made)
            stopping, book = threading.Event(), Book()
            storm = Faults(made, truth, random.Random(seed), stopping)
            clients = [
                Client(str(made.state["api_url"]), book, 1_000 * seed + n, stopping)
                for n in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            wanted = {name.strip() for name in faults.split(",") if name.strip()}
            counts = _storm(storm, seconds, wanted, book, console)
            stopping.set()
            for client in clients:
                client.join(timeout=LAST_WORD + 60)
            storm.heal()
            waited = _await_quiet(made, storm, book, clients[0])
            verdict = judge(truth, book, storm, counts, made.logs())
            verdict.figures["from the last fault to the last outcome"] = f"{waited:.1f} s"
            truth.close()
            verdict.broken += [f"{name} would not end" for name in made.stop()]
        left = _ours() - before
        verdict.must("processes left behind", len(left))
    show(verdict, console)
    result = {"seed": seed, "seconds": seconds, "ok": not verdict.broken, **verdict.figures}
    sys.stdout.write(json.dumps({**result, "broken": verdict.broken}) + "\n")
    raise SystemExit(1 if verdict.broken else 0)


def _storm(
    storm: Faults, seconds: float, wanted: set[str], book: Book, console: Console
) -> Counter[str]:
    """Every few seconds a fault, now and then two."""
    kinds = {name: do for name, do in storm.kinds().items() if not wanted or name in wanted}
    counts: Counter[str] = Counter()
    began = time.monotonic()
    following = began + 3
    while (now := time.monotonic()) < began + seconds:
        if now >= following:
            following = now + storm.draw.choice([0.0, 1.0, 2.0, 3.0, 4.0])
            name = storm.draw.choice(sorted(kinds))
            if kinds[name]():
                counts[name] += 1
                jobs, open_jobs = len(book.jobs), len(book.open())
                console.print(
                    f"{now - began:6.1f} {name}; {jobs} jobs, {open_jobs} open", markup=False
                )
        storm.watch_kills()
        time.sleep(0.1)
    return counts


def _await_quiet(made: World, storm: Faults, book: Book, reader: Client) -> float:
    """Read every job to its end. Returns the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() < began + QUIET_LIMIT:
        storm.watch_kills()
        if not (waiting := book.open()):
            break
        for job in waiting:
            reader.read(job)
        time.sleep(0.2)
    for job in book.jobs.values():
        if job.status in FINISHED:
            reader.read(job)
    return time.monotonic() - began


def _ours() -> set[int]:
    """Processes of any stack."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "-m penstock" in line or "penstock-bench-" in line:
            found.add(process.info["pid"])
    return found


if __name__ == "__main__":
    typer.run(main)
