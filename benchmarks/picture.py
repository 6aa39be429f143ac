"""Rates as two pictures, one for light pages and one for dark ones. Knows no run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.contenders import TITLES
from benchmarks.summary import Summary

mpl.use("Agg")

import matplotlib.pyplot as plt  # after the choice of a backend without a screen

PANELS = (("mixed", "Mixed lengths, times naive"), ("shared", "Shared instruction, times naive"))
INKS = {"light": ("#ffffff", "#1f2328"), "dark": ("#0d1117", "#e6edf3")}
COLORS = {"float32": "#4184e4", "bfloat16": "#e5730f"}


def draw(summary: Summary, folder: Path) -> None:
    """`results-light.png` and `results-dark.png`, of the first model that was run."""
    places = [place for place in summary.places() if place[0] == summary.places()[0][0]]
    for theme, (paper, ink) in INKS.items():
        style: dict[Any, object] = {
            "figure.facecolor": paper,
            "axes.facecolor": paper,
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "text.color": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "font.size": 9,
        }
        with mpl.rc_context(style):
            figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 5), layout="constrained")
            for axis, (cell, title) in zip(axes, PANELS, strict=True):
                _panel(axis, summary, places, cell)
                axis.set_title(title)
            figure.savefig(folder / f"results-{theme}.png", dpi=110)
            plt.close(figure)


def _panel(axis: Any, summary: Summary, places: list[tuple[str, str]], cell: str) -> None:
    """A bar for each contender and dtype, with its spread."""
    names = [name for name in TITLES if any(summary.rate(p, cell, name) for p in places)]
    for index, place in enumerate(places):
        base = summary.rate(place, cell, "naive")
        found = [(n, summary.rate(place, cell, name)) for n, name in enumerate(names)]
        if base is None:
            continue
        bars = [(n + 0.4 * index, spread) for n, spread in found if spread is not None]
        middles = [spread.middle / base.middle for _, spread in bars]
        errors = [
            [(spread.middle - spread.low) / base.middle for _, spread in bars],
            [(spread.high - spread.middle) / base.middle for _, spread in bars],
        ]
        color = COLORS[place[1]]
        heights = [place for place, _ in bars]
        axis.barh(heights, middles, 0.38, color=color, label=place[1])
        axis.errorbar(middles, heights, xerr=errors, fmt="none", ecolor="#888888", capsize=2)
        for height, middle in zip(heights, middles, strict=True):
            axis.annotate(f" {middle:.1f}", (middle, height), va="center", fontsize=7)
    axis.set_yticks([n + 0.2 for n in range(len(names))], [TITLES[name] for name in names])
    axis.spines[["top", "right"]].set_visible(False)
    if axis.containers:
        axis.legend(frameon=False, loc="lower right")
