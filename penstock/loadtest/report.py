"""A summary for the eye: a table, and two charts of plain characters. Knows no HTTP."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from penstock.loadtest.plan import Kind
from penstock.loadtest.samples import Sample
from penstock.loadtest.summary import Distribution, Summary

BUCKETS, WIDTH, COLUMNS = 10, 40, 60  # of the histogram, in rows and characters; of the timeline
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"
MILLISECOND = 0.001  # seconds


def show(console: Console, summary: Summary, samples: Sequence[Sample], kind: Kind) -> None:
    """Everything, for the terminal."""
    console.print(_counts(summary))
    console.print(_times(summary, kind))
    good = [sample for sample in samples if sample.error is None]
    if good:
        console.print("\nlatency")
        for line in histogram([sample.latency for sample in good]):
            console.print(line, markup=False, highlight=False)
        console.print("\nanswers over time")
        console.print(timeline([sample.ended for sample in good]), markup=False)


def _counts(summary: Summary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    sent = f"{summary.requests:,} in {summary.seconds:,.1f} s, {summary.answered:,} answered"
    table.add_row("requests", sent + (", interrupted" if summary.interrupted else ""))
    for kind, count in summary.errors.items():
        table.add_row("error", f"{count:,} times: {kind}")
    if summary.late:
        table.add_row("not sent", f"{summary.late:,} were due while too many were open")
    table.add_row("throughput", f"{summary.requests_per_s:,.2f} requests/s")
    about = " (estimated: the server tells no usage)" if summary.estimated else ""
    table.add_row("", f"{summary.output_tokens_per_s:,.1f} output tokens/s{about}")
    prompt = f"{summary.prompt_tokens:,} in, " if summary.prompt_tokens else ""
    table.add_row("tokens", f"{prompt}{summary.output_tokens:,} out")
    return table


def _times(summary: Summary, kind: Kind) -> Table:
    first = "accepted" if kind == "job" else "time to first token"
    rows: list[tuple[str, Distribution | None]] = [
        ("latency", summary.latency),
        (first, summary.time_to_first),
    ]
    if kind == "chat":
        rows.append(("time per token", summary.time_per_token))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    for name, found in rows:
        if found is None:
            table.add_row(name, *["-"] * 5)
        else:
            cells = (found.mean, found.p50, found.p90, found.p99, found.max)
            table.add_row(name, *map(duration, cells))
    return table


def duration(seconds: float) -> str:
    """`0.0123` as `12.3 ms`."""
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds / MILLISECOND:,.1f} ms"


def histogram(times: Sequence[float]) -> list[str]:
    """How many fell between which times; the steps grow, as latencies do."""
    low, high = max(min(times), MILLISECOND / 1_000), max(times)
    step = math.log(high / low) / BUCKETS if high > low else 0.0
    counts = [0] * BUCKETS
    for time in times:
        place = int(math.log(max(time, low) / low) / step) if step else 0
        counts[min(place, BUCKETS - 1)] += 1
    rows = range(BUCKETS if step else 1)
    most = max(counts)
    ends = [duration(low * math.exp(step * (row + 1))) for row in rows]
    return [f"{ends[row]:>12}  {_bar(counts[row] / most)} {counts[row]:,}" for row in rows]


def timeline(moments: Sequence[float]) -> str:
    """Answers in each part of the run, as heights."""
    start, end = min(moments), max(moments)
    counts = [0] * COLUMNS
    for moment in moments:
        place = int((moment - start) / (end - start) * COLUMNS) if end > start else 0
        counts[min(place, COLUMNS - 1)] += 1
    most = max(counts)
    return "".join(HEIGHTS[count * (len(HEIGHTS) - 1) // most] for count in counts)


def _bar(share: float) -> str:
    eighths = round(share * WIDTH * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
