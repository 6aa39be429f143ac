"""A run as a picture, by matplotlib, which is imported only when a picture is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.errors import InvalidRequest
from penstock.loadtest.samples import Sample

DPI = 150
FORMATS = (".png", ".svg", ".pdf")


def check(file: Path) -> None:
    """Raises InvalidRequest for a kind of file that cannot be drawn."""
    if file.suffix not in FORMATS:
        raise InvalidRequest(f"--plot wants a file ending in {', '.join(FORMATS)}.", param="plot")


def is_possible() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw(samples: Sequence[Sample], title: str, file: Path) -> None:
    """Latencies by share, and each answer where it ended. The file's ending says the format."""
    from matplotlib.figure import Figure

    good = sorted((s for s in samples if s.error is None), key=lambda s: s.ended)
    figure = Figure(figsize=(10, 4), layout="constrained")
    shares, course = figure.subplots(1, 2)
    for name, times in (
        ("latency", [sample.latency for sample in good]),
        ("time to first", [s.time_to_first for s in good if s.time_to_first is not None]),
    ):
        if times:
            ordered = sorted(times)
            steps = [(number + 1) / len(ordered) for number in range(len(ordered))]
            shares.step(ordered, steps, where="post", label=name)
    shares.set(xlabel="seconds", ylabel="share of answers", ylim=(0, 1))
    if good:
        shares.legend(loc="lower right")
    start = min((sample.due for sample in good), default=0.0)
    course.scatter([s.ended - start for s in good], [s.latency for s in good], s=6)
    course.set(xlabel="seconds since the start", ylabel="latency, seconds")
    figure.suptitle(title)
    figure.savefig(file, dpi=DPI)
