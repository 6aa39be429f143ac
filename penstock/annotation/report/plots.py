"""The pictures of a report: histogram, reliability diagram, throughput. Knows figures, no table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from penstock.annotation.report.about import Rate
from penstock.annotation.report.figures import between, duration, many, plural, rate, share
from penstock.annotation.report.svg import Frame, Label, picture, tag, ticks
from penstock.annotation.trust.calibration import Bin, Calibration

WIDE, HIGH = 680, 220
SQUARE = 320
TENTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
GAP = 1.5  # pixels between two bars


def histogram(
    name: str, bars: Sequence[tuple[float, float, int]], title: str, axis: str, label: Label
) -> Markup:
    """Of (low, high, count), next to each other; `label` writes a bound."""
    height = ticks(max(count for _, _, count in bars))
    frame = Frame(56, WIDE - 10, 26, HIGH - 42, (bars[0][0], bars[-1][1]), (0.0, height[-1]))
    shapes = []
    for low, high, count in bars:
        left, top = frame.x(low) + GAP / 2, frame.y(count)
        hint = tag("title", f"{label(low)} to {label(high)}: {many(count)}")
        width, tall = frame.x(high) - left - GAP / 2, frame.bottom - top
        shapes.append(tag("rect", hint, class_="bar", x=left, y=top, width=width, height=tall))
    largest = max(bars, key=lambda bar: bar[2])
    total = sum(count for _, _, count in bars)
    description = (
        f"{many(total)} in all; most, {many(largest[2])}, between {label(largest[0])} and "
        f"{label(largest[1])}."
    )
    every = max(1, len(bars) // 10)
    bounds = [low for low, _, _ in bars[::every]] + [bars[-1][1]]
    parts = [frame.y_axis(height, many, "rows"), *shapes, frame.x_axis(bounds, label, axis)]
    return picture(name, WIDE, HIGH, title, description, parts)


def lengths(name: str, counts: Sequence[int], bounds: Sequence[int], title: str) -> Markup:
    """Bars of equal width for lengths up to each bound, the last for what is longer."""
    last = max((place for place, count in enumerate(counts) if count), default=0)
    names = [f"≤ {many(bound)}" for bound in bounds] + [f"> {many(bounds[-1])}"]
    height = ticks(max(counts))
    frame = Frame(56, WIDE - 10, 26, HIGH - 42, (0.0, last + 1.0), (0.0, height[-1]))
    shapes = []
    for place, count in enumerate(counts[: last + 1]):
        left, top = frame.x(place) + GAP, frame.y(count)
        hint = tag("title", f"{names[place]} tokens: {plural(count, 'row')}")
        width = frame.x(place + 1) - left - GAP
        shapes.append(
            tag("rect", hint, class_="bar", x=left, y=top, width=width, height=frame.bottom - top)
        )
    middles = [place + 0.5 for place in range(last + 1)]
    axis = frame.x_axis(middles, lambda place: names[int(place)], "tokens of the answer")
    description = f"Most answers have {names[max(range(last + 1), key=counts.__getitem__)]} tokens."
    return picture(
        name, WIDE, HIGH, title, description, [frame.y_axis(height, many, "rows"), *shapes, axis]
    )


def reliability(name: str, title: str, calibration: Calibration) -> Markup:
    """What the probabilities said against how often they were right, with 95 % intervals."""
    frame = Frame(46, SQUARE - 10, 26, SQUARE - 44, (0.0, 1.0), (0.0, 1.0))
    diagonal = tag(
        "line", class_="ideal", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1)
    )
    most = max(bin.rows for bin in calibration.bins)
    points = [_point(frame, bin, most) for bin in calibration.bins]
    description = (
        f"Expected calibration error {calibration.ece:.3f} on {many(calibration.rows)} gold rows. "
        + " ".join(f"{_said(bin)}." for bin in calibration.bins)
    )
    parts = [
        frame.y_axis(TENTHS, lambda value: share(value, 0), "right"),
        diagonal,
        *points,
        frame.x_axis(TENTHS, lambda value: share(value, 0), "probability"),
    ]
    return picture(name, SQUARE, SQUARE, title, description, parts)


def _point(frame: Frame, bin: Bin, most: int) -> Markup:
    x, y, bounds = frame.x(bin.confidence), frame.y(bin.accuracy), bin.interval
    spread = tag(
        "line", class_="spread", x1=x, x2=x, y1=frame.y(bounds.low), y2=frame.y(bounds.high)
    )
    radius = 2.5 + 5.5 * math.sqrt(bin.rows / most)
    return spread + tag("circle", tag("title", _said(bin)), class_="point", cx=x, cy=y, r=radius)


def _said(bin: Bin) -> str:
    return (
        f"said {share(bin.confidence, 0)}, right {share(bin.accuracy, 0)} "
        f"({between(bin.interval)}) of {plural(bin.rows, 'row')}"
    )


def throughput(name: str, rates: Sequence[Rate]) -> Markup:
    """Rows per second over the time of the run."""
    end, highest = rates[-1].end, max(piece.rows for piece in rates)
    height = ticks(highest)
    frame = Frame(56, WIDE - 10, 26, HIGH - 42, (rates[0].start, end), (0.0, height[-1]))
    corners = [
        (frame.x(at), frame.y(piece.rows)) for piece in rates for at in (piece.start, piece.end)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    base = f"{frame.x(rates[0].start):.1f},{frame.bottom} "
    under = f"{base}{line} {frame.x(end):.1f},{frame.bottom}"
    seconds = end - rates[0].start
    mean = sum(piece.rows * (piece.end - piece.start) for piece in rates) / seconds
    description = f"{rate(mean)} rows per second on average over {duration(seconds)}."
    parts = [
        frame.y_axis(height, rate, f"rows/s; dashed: mean, {rate(mean)}"),
        tag("polygon", class_="area", points=under),
        tag("polyline", class_="line", points=line),
        tag(
            "line",
            class_="ideal",
            x1=frame.left,
            x2=frame.right,
            y1=frame.y(mean),
            y2=frame.y(mean),
        ),
        frame.x_axis(_moments(rates[0].start, end), _clock, "since the start"),
    ]
    return picture(name, WIDE, HIGH, "Throughput over time", description, parts)


def _moments(start: float, end: float) -> tuple[float, ...]:
    """Moments at whole numbers of the unit that fits."""
    unit = next((unit for unit in (3_600, 60) if end - start >= 3 * unit), 1)
    return tuple(
        start + at * unit for at in ticks((end - start) / unit) if at * unit <= end - start
    )


def _clock(seconds: float) -> str:
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
