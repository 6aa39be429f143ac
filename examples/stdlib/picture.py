"""The demo's picture: rows over time, what probabilities mean, and accuracy by topic. Knows a
report's figures; reads no table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.annotation.report.about import Report
from penstock.annotation.trust.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GRAY, RED = "#2b6cb0", "#718096", "#c53030"


def draw(path: Path, report: Report, history: Sequence[tuple[float, int]]) -> None:
    """Write a PNG. `history`: seconds and rows done."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, trust_axes, topic_axes = figure.subplots(1, 3)
    _progress(time_axes, history)
    _reliability(trust_axes, report)
    _by_topic(topic_axes, report)
    figure.savefig(path, dpi=120)


def _progress(axes: "Axes", history: Sequence[tuple[float, int]]) -> None:
    seconds, rows = [at for at, _ in history], [done for _, done in history]
    axes.plot(seconds, rows, color=BLUE, linewidth=2)
    axes.fill_between(seconds, rows, color=BLUE, alpha=0.15)
    axes.set(title="Rows annotated over time", xlabel="seconds", ylabel="rows")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _reliability(axes: "Axes", report: Report) -> None:
    axes.plot([0, 100], [0, 100], color=GRAY, linewidth=1, linestyle="--")
    for voter in report.calibrated:
        drawn = (("before", voter.before, RED), ("after", voter.after, BLUE))
        for name, calibration, color in drawn:
            if calibration is not None:
                _curve(axes, name, calibration, color)
    axes.set(title="Does a probability mean what it says?", xlim=(0, 100), ylim=(0, 100))
    axes.set(xlabel="percent that the model says", ylabel="percent right")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", frameon=False)


def _curve(axes: "Axes", name: str, calibration: Calibration, color: str) -> None:
    says = [100 * each.confidence for each in calibration.bins]
    right = [100 * each.accuracy for each in calibration.bins]
    label = f"{name} scaling: {100 * calibration.ece:.1f} % off"
    axes.plot(says, right, color=color, marker="o", markersize=4, label=label)


def _by_topic(axes: "Axes", report: Report) -> None:
    found = [(score.name, score.gold, score.recall) for score in report.findings.gold.scores()]
    shares = sorted(
        ((recall, f"{name} ({rows})") for name, rows, recall in found if recall is not None),
        key=lambda pair: pair[0].middle,
    )
    labels = [label for _, label in shares]
    middles = [100 * recall.middle for recall, _ in shares]
    below = [100 * (recall.middle - recall.low) for recall, _ in shares]
    above = [100 * (recall.high - recall.middle) for recall, _ in shares]
    axes.barh(labels, middles, color=BLUE, xerr=[below, above], ecolor="black", capsize=3)
    accuracy = report.findings.gold.accuracy
    if accuracy is not None:
        percent = 100 * accuracy.middle
        axes.axvline(percent, color=RED, linewidth=1.5)
        axes.set(xlabel=f"percent right, 95 % intervals; of all rows {percent:.0f} %")
    axes.set(title="Accuracy by topic (rows)", xlim=(0, 100))
