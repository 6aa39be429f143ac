"""A large CSV file through `penstock annotate run` on the fake model: rows/s, the client's memory
beside that of a small file, and whether the output is the input, byte by byte, with more cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.stack import Stack, stack

HEADER = "id,größe,text\n".encode()
TASK = ("--template", "Is this about trees? {{ text }}", "--labels", "yes,no")
ERROR = -3  #: of the added cells: error, prompt_tokens, completion_tokens are the last


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command. `memory`: the most that the process held resident, in MB."""

    rows: int
    input_mb: float
    seconds: float
    rows_per_s: float
    processor_us: float  #: of the client for a row
    memory: float
    failed: int
    identical: bool  #: all rows are there, in order, and their own cells the same bytes


def main(
    rows: Annotated[int, typer.Option(help="Rows of the large table.")] = 1_000_000,
    small: Annotated[int, typer.Option(help="Rows of the small one.")] = 10_000,
) -> None:
    """Measure, print, end with one line of JSON; exit status 1 where a byte differs."""
    with (
        stack("fake", PENSTOCK_LOG__LEVEL="WARNING") as up,
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
    ):
        runs = [_run(up, Path(folder), size) for size in (small, rows)]
    growth = runs[1].memory - runs[0].memory
    for run in runs:
        _say(
            f"{run.rows:,} rows ({run.input_mb:,.1f} MB): {run.rows_per_s:,.0f} rows/s, client "
            f"{run.memory:.0f} MB and {run.processor_us:.0f} µs a row, {run.failed:,} failed, "
            f"{'identical' if run.identical else 'NOT identical'}"
        )
    _say(json.dumps({"runs": [asdict(run) for run in runs], "growth_mb": round(growth, 1)}))
    raise typer.Exit(0 if all(run.identical for run in runs) else 1)


def row(number: int, rows: int) -> bytes:
    """What spoils rows in practice: quotes, delimiters and ends of lines within cells, umlauts.
    None is in two tables, so that no answer is there already."""
    text = f"Row {number} of {rows} is about trees"
    if number % 3 == 0:
        text = f'"{text}, ""Bäume"", and\r\nabout {number % 7} more lines\n"'
    elif number % 3 == 1:
        text = f'"{text}"'
    return f"{number},{number % 100}\u202f°C,{text}\n".encode()


def _run(up: Stack, folder: Path, rows: int) -> Run:
    table, output = folder / f"{rows}.csv", folder / f"{rows}-out.csv"
    with table.open("wb") as file:
        file.write(HEADER)
        file.writelines(row(number, rows) for number in range(rows))
    command = [sys.executable, "-m", "penstock", "annotate", "run", str(table)]
    command += ["--output", str(output), *TASK, "--url", up.url]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # Not by `wait`: this tells what this one child used, memory included.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"penstock annotate ended with {process.returncode}")
    failed = list(failures(output, rows))
    size = table.stat().st_size
    table.unlink()
    output.unlink()
    return Run(
        rows=rows,
        input_mb=round(size / 1e6, 1),
        seconds=round(seconds, 1),
        rows_per_s=round(rows / seconds, 1),
        processor_us=round((used.ru_utime + used.ru_stime) / rows * 1e6, 1),
        memory=round(used.ru_maxrss * 1024 / 1e6, 1),
        failed=sum(failed),
        identical=len(failed) == rows,
    )


def failures(output: Path, rows: int) -> Iterator[bool]:
    """For each row that is as it was, whether it has an error. Ends at the first that is not, and
    has one too many where something comes after the last."""
    with output.open("rb") as file:
        if not file.readline().startswith(HEADER.rstrip(b"\n") + b","):
            return
        for number in range(rows):
            own = row(number, rows)[:-1] + b","
            if file.read(len(own)) != own:
                return
            yield bool(file.readline().split(b",")[ERROR])
        if file.read(1):
            yield False


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
