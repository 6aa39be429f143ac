"""Pictures as inline SVG: scales, axes and text whose colors are the page's. Knows no data.

Every picture has a title and a description, and says nothing by color alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

Label = Callable[[float], str]


def tag(name: str, *inside: Markup | str, **attributes: object) -> Markup:
    """An element. What is inside is escaped unless it is markup; `class_` and `stroke_width` are
    written as `class` and `stroke-width`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"),
            f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value,
        )
        for key, value in attributes.items()
    )
    content = Markup("").join(escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, content)


def picture(
    name: str, width: int, height: int, title: str, description: str, parts: Iterable[Markup]
) -> Markup:
    """The whole of one. `name` has to be another one for each of a page."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-description"),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-description",
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """Where values lie: x from `left` to `right`, y from `bottom` up to `top`, in pixels."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def x_axis(self, ticks: Iterable[float], label: Label, name: str) -> Markup:
        marks = [
            text(self.x(tick), self.bottom + 16, label(tick), anchor="middle") for tick in ticks
        ]
        middle = (self.left + self.right) / 2
        line = tag(
            "line", class_="axis", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom
        )
        return Markup("").join(
            [line, *marks, text(middle, self.bottom + 34, name, anchor="middle", class_="name")]
        )

    def y_axis(self, ticks: Iterable[float], label: Label, name: str) -> Markup:
        """With a line across the picture at each tick, and its name above it."""
        marks = []
        for tick in ticks:
            y = self.y(tick)
            marks.append(tag("line", class_="grid", x1=self.left, x2=self.right, y1=y, y2=y))
            marks.append(text(self.left - 6, y + 4, label(tick), anchor="end"))
        return Markup("").join([*marks, text(0, self.top - 10, name, class_="name")])


def text(
    x: float, y: float, content: str, *, anchor: str = "start", class_: str = "tick"
) -> Markup:
    return tag("text", content, class_=class_, x=x, y=y, text_anchor=anchor)


def ticks(high: float, most: int = 5) -> tuple[float, ...]:
    """Round numbers from 0 to `high` or just beyond it."""
    if high <= 0:
        return (0.0, 1.0)
    rough = high / most
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    return tuple(step * place for place in range(math.ceil(high / step - 1e-9) + 1))
