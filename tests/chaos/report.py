"""RESULTS.md: the table of one run, and what it ran on."""

from __future__ import annotations

from pathlib import Path

from benchmarks import machine
from tests.chaos.verdict import Verdict

PATH = Path(__file__).with_name("RESULTS.md")
HARDWARE = ("processor", "cores", "memory", "system")


def write(verdict: Verdict, *, seconds: float, seed: int, workers: int, model: str) -> None:
    """Replaces the last run's."""
    known = machine.describe()
    lines = [
        "# What everything breaking at random came to",
        "",
        f"{seconds:,.0f} seconds of faults, seed {seed}, {workers} workers, the model `{model}`: "
        f"`python -m tests.chaos --seconds {seconds:.0f} --seed {seed} --workers {workers} "
        f"--model {model} --record`",
        "",
        *(f"* {name}: {known[name]}" for name in HARDWARE),
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in verdict.figures.items()),
        "",
        *(f"**Broken: {line}**\n" for line in verdict.broken),
    ]
    PATH.write_text("\n".join(lines).rstrip() + "\n")
