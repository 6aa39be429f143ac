"""The demo's picture: rows over time, and accuracy by topic. Knows figures alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

BLUE, GRAY, RED = "#2b6cb0", "#718096", "#c53030"
NARROW = 12  # percent; a shorter bar has its label beside it


def draw(
    path: Path,
    progress: Sequence[tuple[float, int]],
    by_topic: Mapping[str, tuple[float, int]],
    majority: float,
) -> None:
    """Write a PNG. `progress`: seconds and rows done; `by_topic`: accuracy and rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, topic_axes = figure.subplots(1, 2)

    seconds = [at for at, _ in progress]
    rows = [done for _, done in progress]
    time_axes.plot(seconds, rows, color=BLUE, linewidth=2)
    time_axes.fill_between(seconds, rows, color=BLUE, alpha=0.15)
    time_axes.set(title="Rows annotated over time", xlabel="seconds", ylabel="rows")
    time_axes.set_xlim(left=0)
    time_axes.set_ylim(bottom=0)
    time_axes.grid(alpha=0.3)

    ranked = sorted(by_topic.items(), key=lambda item: item[1][0])
    labels = [f"{topic} ({count})" for topic, (_, count) in ranked]
    shares = [100 * share for _, (share, _) in ranked]
    total = sum(count for _, count in by_topic.values())
    accuracy = 100 * sum(share * count for share, count in by_topic.values()) / total
    topic_axes.barh(labels, shares, color=BLUE)
    for height, share in enumerate(shares):
        inside = share >= NARROW
        at, color = (1.5, "white") if inside else (share + 1.5, "black")
        topic_axes.text(at, height, f"{share:.0f} %", va="center", color=color)
    topic_axes.axvline(accuracy, color=RED, linewidth=1.5, label=f"all rows: {accuracy:.0f} %")
    topic_axes.axvline(
        100 * majority,
        color=GRAY,
        linewidth=1.5,
        linestyle="--",
        label=f"always the commonest topic: {100 * majority:.0f} %",
    )
    topic_axes.set(title="Accuracy by topic (rows)", xlabel="percent right", xlim=(0, 100))
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
