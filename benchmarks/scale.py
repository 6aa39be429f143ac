"""`make scale`: a job of a million prompts between jobs of ten thousand, through the whole service
on the fake model; then what the loss of Redis and the end of a worker cost. Writes SCALE.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from benchmarks import machine, outages, timed_job
from benchmarks.outages import GRACE, Outages
from benchmarks.stack import stack
from benchmarks.timed_job import Reading, TimedJob

PROCESSES = ("api", "dispatcher", "worker", "postgres", "redis", "flower")
BOUND = 0.15  #: that a row of the large job may cost more than one of the small


@dataclass(frozen=True, slots=True)
class Scale:
    """Small jobs on an empty database, the large one, and small ones beside it."""

    before: Sequence[TimedJob]
    large: TimedJob
    after: Sequence[TimedJob]
    readings: Sequence[Reading]

    def growth(self, of: str) -> float:
        """A row of the large job by one of the small, less 1; `of` a cost of `TimedJob`."""
        small = statistics.median(getattr(job, of) for job in (*self.before, *self.after))
        return float(getattr(self.large, of) / small - 1)


def main(
    rows: Annotated[int, typer.Option(help="Prompts of the large job.")] = 1_000_000,
    small: Annotated[int, typer.Option(help="Prompts of a small one.")] = 10_000,
    repeats: Annotated[int, typer.Option(help="Small jobs before, and after.")] = 5,
    outage_rows: Annotated[int, typer.Option(help="Prompts of a job without Redis.")] = 40_000,
    out: Annotated[Path, typer.Option(help="Where SCALE.md goes.")] = Path("benchmarks"),
) -> None:
    """Measure, print, write."""
    scale = measure(rows, small, repeats)
    written = document(scale, outages.measure(outage_rows))
    (out / "SCALE.md").write_text(written)
    _say(written)


def measure(rows: int, small: int, repeats: int) -> Scale:
    settings = {
        "PENSTOCK_API__MAX_PROMPTS": str(rows),
        "PENSTOCK_LOG__LEVEL": "WARNING",
    }
    with stack("fake", **settings) as up, httpx2.Client(base_url=up.url, timeout=120) as client:

        def job(size: int) -> TimedJob:
            done = timed_job.run(up, client, size)
            _say(f"{size:,} rows: {done.rows_per_s:,.0f} rows/s, {done.processor_us:,.0f} µs each")
            return done

        job(small)  # warm
        before = [job(small) for _ in range(repeats)]
        large = job(rows)
        readings = timed_job.read_back(up, client, large)
        after = [job(small) for _ in range(repeats)]
    return Scale(before, large, after, readings)


def document(scale: Scale, lost: Outages) -> str:
    """SCALE.md."""
    hardware = machine.describe()
    head = [
        "# Scale",
        f"Written by `make scale`: {hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory']}; {hardware['system']}. The stack of `penstock up` with its own "
        "settings and the fake model; one job at a time, over HTTP.",
    ]
    return "\n\n".join([*head, _jobs(scale), _memory(scale), _reading(scale), _lost(lost)]) + "\n"


def _jobs(scale: Scale) -> str:
    lines = [
        "| job | accepted, rows/s | end to end, rows/s | time a row, µs | processor a row, µs |",
        "|---|---|---|---|---|",
    ]
    size = scale.before[0].rows
    rows = {
        f"{size:,} rows, before": scale.before,
        f"**{scale.large.rows:,} rows**": [scale.large],
        f"{size:,} rows, after": scale.after,
    }
    for name, jobs in rows.items():
        cells = [
            _median([job.rows / job.accepted for job in jobs]),
            _median([job.rows_per_s for job in jobs]),
            _median([job.wall_us for job in jobs]),
            _median([job.processor_us for job in jobs]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    wall, processor = scale.growth("wall_us"), scale.growth("processor_us")
    lines += [
        "",
        f"A row of the large job costs {wall:+.0%} time and {processor:+.0%} processor time of one "
        f"of the small jobs (at most {BOUND:+.0%}). Medians of {len(scale.before)} on each side.",
    ]
    return "\n".join(lines)


def _memory(scale: Scale) -> str:
    lines = [
        "| process | peak PSS, MB: small jobs | large | processor a row, µs: small jobs | large |",
        "|---|---|---|---|---|",
    ]
    small, large = scale.before, scale.large
    for name in PROCESSES:
        peak = max(job.memory[name] for job in small)
        cost = statistics.median(job.processor[name] / job.rows for job in small) * 1e6
        own = large.processor[name] / large.rows * 1e6
        lines.append(f"| {name} | {peak:.0f} | {large.memory[name]:.0f} | {cost:.0f} | {own:.0f} |")
    return "\n".join(lines)


def _reading(scale: Scale) -> str:
    lines = [
        "| all answers read back | seconds | MB | the API's peak PSS, MB |",
        "|---|---|---|---|",
    ]
    for one in scale.readings:
        lines.append(
            f"| {one.how} | {one.seconds:.1f} | {one.bytes / 1e6:.0f} | {one.api_mb:.0f} |"
        )
    return "\n".join(lines)


def _lost(lost: Outages) -> str:
    return (
        f"Redis dead for the whole of a job of {lost.rows:,}, in turn with jobs beside a living "
        f"one: {_rates(lost.without_redis)} against {_rates(lost.with_redis)} rows/s, "
        f"{lost.share:.0%} of the normal rate (at least 80 %). "
        "The worker finds such a job when it next looks, which is every 2 s.\n\n"
        f"SIGTERM to the worker in the middle of a job: it had ended after {lost.exit_s:.1f} s "
        f"(grace period {GRACE:.0f} s); {lost.repeats} prompts ran twice."
    )


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}"


def _rates(values: Sequence[float]) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
