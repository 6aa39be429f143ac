"""`python -m benchmarks.scoring`: rows labelled by scoring, by decoding the label under its mask,
and by one forward for each label, on the committed small model, after one instruction and without.

The three take turns in short rounds, so that a machine that slows down slows them all. Ends with
one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

# Before anything imports transformers.
from models.environment import prepare_environment

prepare_environment(hub_allowed=False)

from benchmarks import contenders, machine  # noqa: E402
from benchmarks.models import BenchModel, committed  # noqa: E402
from benchmarks.plan import Cell, Entry  # noqa: E402
from benchmarks.rounds import Results, Sample, fleet, run  # noqa: E402
from benchmarks.workloads import labels  # noqa: E402

BENCH = Path(".bench")
SCORE, MASK, EACH = "score", "mask", "per-label"
#: Tokens before all prompts, and of each one's own.
SHAPES = {"one instruction": (400, 40), "nothing shared": (0, 120)}


@dataclass(frozen=True, slots=True)
class Spread:
    """Over the rounds."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one shape. Rates in rows a second; `agreed`: share of `compared` rows where scoring and
    single forwards chose the same label."""

    shape: str
    rates: dict[str, Spread]
    by_mask: Spread
    by_each: Spread
    compared: int
    agreed: float


def main(
    rows: Annotated[int, typer.Option(help="Of each shape, scored and decoded.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="In which they are run.")] = 10,
    each: Annotated[int, typer.Option(help="Rows of a round by single forwards.")] = 8,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    only: Annotated[str, typer.Option(help="Only this shape.")] = "",
) -> None:
    """Measure and print."""
    model, results = committed(BENCH / "models"), Results()
    shapes = [shape for shape in SHAPES if only in ("", shape)]
    plan = [cell(model, shape, rows, rounds, each) for shape in shapes]
    everyone = contenders.everyone(
        ("packed", "hf"), model.folder, dtype, machine.cores(), machine.allocator(), BENCH
    )
    with fleet(everyone, results, BENCH / "logs" / "scoring") as running:
        run(plan, running, results, (model.name, dtype), BENCH / "workloads", _say)
    if results.skipped:
        raise SystemExit(f"Not measured: {results.skipped}")
    found = [finding(shape, results.samples) for shape in shapes]
    for one in found:
        _show(one)
    told = {"rows": rows, "dtype": dtype, "findings": [asdict(one) for one in found]}
    sys.stdout.write(json.dumps({**told, "machine": machine.describe()}) + "\n")


def cell(model: BenchModel, shape: str, rows: int, rounds: int, each: int) -> Cell:
    """What is run of one shape."""
    shared, own = SHAPES[shape]
    workload = labels(rows, model.vocabulary, model.encode, shared=shared, own=own)
    part = rows // rounds
    return Cell(
        shape,
        workload,
        (
            Entry(SCORE, "packed", "score", part, rounds),
            Entry(MASK, "packed", "mask", part, rounds),
            Entry(EACH, "hf", "per_label", each, rounds),
        ),
    )


def finding(shape: str, samples: Sequence[Sample]) -> Finding:
    """What the rounds of one shape come to."""
    by_who = {
        who: sorted(
            (one for one in samples if (one.cell, one.contender) == (shape, who)),
            key=lambda one: one.round,
        )
        for who in (SCORE, MASK, EACH)
    }
    rates = {
        who: [one.answer.rows / one.answer.seconds for one in runs] for who, runs in by_who.items()
    }
    # Each round goes on where the one before it ended, so the picks stand in the rows' order.
    scored, single = (
        [pick for one in by_who[who] for pick in one.answer.picks] for who in (SCORE, EACH)
    )
    pairs = list(zip(scored, single, strict=False))
    return Finding(
        shape=shape,
        rates={who: _spread(found) for who, found in rates.items()},
        by_mask=_spread([a / b for a, b in zip(rates[SCORE], rates[MASK], strict=True)]),
        by_each=_spread([a / b for a, b in zip(rates[SCORE], rates[EACH], strict=True)]),
        compared=len(pairs),
        agreed=sum(a == b for a, b in pairs) / len(pairs),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(min(values), median(values), max(values))


def _show(one: Finding) -> None:
    _say(f"{one.shape}:")
    for who, rate in one.rates.items():
        _say(f"  {who}: {rate.middle:,.1f} rows/s ({rate.low:,.1f} to {rate.high:,.1f})")
    for who, ratio in ((MASK, one.by_mask), (EACH, one.by_each)):
        _say(f"  score / {who}: {ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    _say(f"  the same label as single forwards: {one.agreed:.1%} of {one.compared} rows")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    typer.run(main)
