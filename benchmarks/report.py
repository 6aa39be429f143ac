"""Results as one document and as tables on a terminal. Computes nothing but what it prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import TITLES
from benchmarks.rounds import Results
from benchmarks.summary import TOKENS, Requirement, Spread, Summary
from benchmarks.whole import ENGINE, TURN, Whole

CELLS = {
    "mixed": "Mixed log-normal lengths (mean 133 tokens in, 58 out)",
    "shared": "Shared instruction of 400 tokens, 40 more, answers of 8",
    "tail": "Long tail: one row in 50 ten times as long",
    "labels": "Eight labels of 1 to 4 tokens after a shared instruction of 400",
    "single": "One prompt alone, 64 tokens",
}
KINDS = {"score": "scored, all probabilities", "mask": "one label decoded under its mask"}
#: Who took processor time in the service, in this order.
SPENDERS = {
    ENGINE: "engine",
    "worker": "worker's other threads",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "api": "API",
    "dispatcher": "dispatcher",
    "flower": "Flower",
}
MARKS = {True: "yes", False: "**no**", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run found out."""

    machine: dict[str, str]
    asked: str  #: what was left out or made smaller, as options; nothing: all was run
    minutes: float
    results: Results
    summary: Summary
    needs: Sequence[Requirement]
    whole: Sequence[Whole]


def document(report: Report) -> str:
    """RESULTS.md."""
    parts = [_head(report), _must_hold(report.needs)]
    for place in report.summary.places():
        parts.append(f"## {place[0]}, {place[1]}")
        parts += [_cell(report.summary, place, cell) for cell in CELLS]
        parts += [_first_token(report.summary, place), _padding(report.summary, place)]
        parts.append(_growth(report.summary, place))
    parts += [_whole(report.whole), _skipped(report.results), _versions(report.results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def show(report: Report, console: Console) -> None:
    """What must hold, and the rates, on a terminal."""
    table = Table(title="must hold")
    for column in ("", "what", "measured", "bound", "holds"):
        table.add_column(column)
    for need in report.needs:
        bound = _bound(need)
        mark = MARKS[need.holds].strip("*") if bound else ""
        table.add_row(str(need.number), need.what, _number(need.measured), bound, mark)
    for place in report.summary.places():
        rates = Table(title=f"{place[0]}, {place[1]}: tokens/s, or rows/s")
        for column in ("workload", "who", "median", "lowest to highest"):
            rates.add_column(column)
        for cell in CELLS:
            for name, spread in _rates(report.summary, place, cell):
                span = f"{spread.low:,.1f} to {spread.high:,.1f}"
                rates.add_row(cell, name, f"{spread.middle:,.1f}", span)
        console.print(rates)
    console.print(table)
    for name, reason in report.results.skipped.items():
        console.print(f"left out: {name}: {reason}", markup=False)


def _head(report: Report) -> str:
    lines = [
        "# Results",
        "Written by `make bench`" + (f" with `{report.asked}`" if report.asked else "") + ","
        f" which took {report.minutes:.0f} minutes. All contenders run in one program, one at a"
        " time, in interleaved rounds; figures are medians of the rounds, with the lowest and the"
        " highest. A ratio of rates that must hold is the median of the quotients within rounds, of"
        " our rate and that of the rival with the highest median. A slow contender gets fewer rows,"
        " other ones in each round; its figure is the rate of all of them together, and so are both"
        " rates of a ratio with it. Each has the same weights, prompts and forced lengths, decodes"
        " greedily, and uses the same number of threads and the same allocator. Compare figures of"
        " one run, not of two machines.",
        _table(("machine", ""), report.machine.items()),
        '<picture><source media="(prefers-color-scheme: dark)" srcset="results-dark.png">'
        '<img alt="Rates by contender" src="results-light.png"></picture>',
    ]
    return "\n\n".join(lines)


def _must_hold(needs: Iterable[Requirement]) -> str:
    rows = []
    for need in needs:
        bound = _bound(need)
        mark = MARKS[need.holds] if bound else ""
        rows.append((str(need.number), need.what, _number(need.measured), bound, mark))
    return "## Must hold\n\n" + _table(("", "what", "measured", "bound", "holds"), rows)


def _cell(summary: Summary, place: tuple[str, str], cell: str) -> str:
    rates = _rates(summary, place, cell)
    if not rates:
        return ""
    base = summary.rate(place, cell, "per-label" if cell == "labels" else "naive")
    unit = "tokens/s" if cell in TOKENS else "rows/s"
    rows = []
    for name, spread in rates:
        times = f"{spread.middle / base.middle:,.2f}" if base else ""
        span = f"{spread.low:,.1f} to {spread.high:,.1f}"
        runs = f"{spread.rounds} of {spread.rows:,}"
        rows.append((name, f"{spread.middle:,.1f}", span, runs, times))
    against = "times per label" if cell == "labels" else "times naive"
    head = ("who", unit, "lowest to highest", "rounds of rows", against)
    return f"### {CELLS[cell]}\n\n" + _table(head, rows)


def _rates(summary: Summary, place: tuple[str, str], cell: str) -> list[tuple[str, Spread]]:
    found = []
    for name in summary.contenders(place, cell):
        spread = summary.rate(place, cell, name)
        if spread is not None:
            found.append((_title(name), spread))
    return sorted(found, key=lambda pair: pair[1].middle)


def _title(name: str) -> str:
    if name == "per-label":
        return "one forward per label"
    base, _, kind = name.rpartition("-")
    return f"{TITLES[base]}: {KINDS[kind]}" if kind in KINDS else TITLES[name]


def _first_token(summary: Summary, place: tuple[str, str]) -> str:
    idle, busy = (summary.first_token(place, f"packed-{when}") for when in ("idle", "busy"))
    if idle is None or busy is None:
        return ""
    lone = summary.first_token(place, "packed-busy", chat="0") or busy
    bulk = summary.figure(place, "express", "packed-busy", "bulk_tokens_per_s") or 0.0
    return (
        f"A chat's first token: {1e3 * idle:.1f} ms on an idle engine, {1e3 * busy:.1f} ms while"
        f" bulk fills it ({busy / idle:.2f} times); of the first chat after a silence"
        f" {1e3 * lone:.1f} ms ({lone / idle:.2f} times). Bulk made {bulk:,.0f} tokens/s between"
        " the chats, in steps that are shorter then."
    )


def _padding(summary: Summary, place: tuple[str, str]) -> str:
    rows = []
    for name in ("packed", "torch", "padded"):
        linear = summary.figure(place, "mixed", name, "padded_share")
        keys = summary.figure(place, "mixed", name, "padded_share_keys")
        if linear is not None and keys is not None:
            rows.append((TITLES[name], f"{linear:.1%}", f"{keys:.1%}"))
    if not rows:
        return ""
    head = ("mixed lengths", "pads in the linear layers", "pads among the keys read")
    return _table(head, rows)


def _growth(summary: Summary, place: tuple[str, str]) -> str:
    rows = []
    for count, (milliseconds, memory) in sorted(summary.growth(place).items()):
        cell = f"growth-{count}"
        others = [
            f"{TITLES[name]} {1e3 / spread.middle:,.1f} ms"
            for name in summary.contenders(place, cell)
            if name != "packed" and (spread := summary.rate(place, cell, name))
        ]
        resident = "" if memory is None else f"{memory:,.0f} MB"
        rows.append((f"{count:,}", f"{milliseconds:,.2f} ms", resident, "; ".join(others)))
    if not rows:
        return ""
    head = ("rows", "time per row, packed", "resident", "others")
    return "### How the cost grows (mixed lengths)\n\n" + _table(head, rows)


def _whole(found: Sequence[Whole]) -> str:
    rows = [
        (
            f"{one.model}, {one.dtype}, {one.rows:,} rows",
            _list(one.service),
            _list(one.bare),
            f"{one.ratio:.3f}",
            f"{one.accepted:.2f} s",
        )
        for one in found
    ]
    if not rows:
        return ""
    head = ("", "service, tokens/s", "bare engine", "ratio", "accepted after")
    how = f"Both sides run their job in turns of {TURN:g} s, and only their own turns count."
    parts = ["## Through the whole service", how, _table(head, rows), _spent(found)]
    return "\n\n".join(parts)


def _spent(found: Sequence[Whole]) -> str:
    """Where the rest goes."""
    rows = [
        (one.model, *(f"{1e3 * one.spent.get(name, 0.0):,.2f}" for name in SPENDERS))
        for one in found
    ]
    return (
        "Milliseconds of one core for each row. The engine's threads wait for each other at every"
        " layer, so that what one of them loses to somebody else, all of them lose.\n\n"
    ) + _table(("", *SPENDERS.values()), rows)


def _skipped(results: Results) -> str:
    rows = [(name, reason.replace("|", "/")) for name, reason in results.skipped.items()]
    return "## Left out\n\n" + _table(("who", "reason"), rows) if rows else ""


def _versions(results: Results) -> str:
    rows = [
        (name, "; ".join(f"{key} {value}" for key, value in versions.items()))
        for name, versions in results.versions.items()
    ]
    return "## What each said of itself\n\n" + _table(("process", ""), rows)


def _bound(need: Requirement) -> str:
    if need.least is not None:
        return f"≥ {need.least:g}"
    return "" if need.most is None else f"≤ {need.most:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
