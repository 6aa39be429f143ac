"""What the cells of typed columns hold: how many are filled, and with what. Knows no schema."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.annotation.records import Interval, Type
from penstock.annotation.report.cells import empty, number, text, truth
from penstock.annotation.report.counts import Names, Top
from penstock.annotation.trust.intervals import wilson

NUMBERS = frozenset({Type.NUMBER, Type.INTEGER})
SHOWN = 5  # values of a column


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """One column. `right`: on the gold rows whose gold value names it. `low`, `mean` and `high`
    where it holds numbers, `top` elsewhere."""

    name: str
    filled: int
    right: Interval | None = None
    top: Top | None = None
    low: float | None = None
    mean: float | None = None
    high: float | None = None


class Field:
    """Accumulates the cells of one column."""

    def __init__(self, name: str, kind: Type) -> None:
        self._name, self._kind = name, kind
        self._filled = 0
        self._sum, self._low, self._high = 0.0, float("inf"), float("-inf")
        self._numbers = 0
        self._names = Names()
        self._gold = self._right = 0

    def add(self, cell: object) -> None:
        if empty(cell):
            return
        self._filled += 1
        value = number(cell) if self._kind in NUMBERS else None
        if value is not None:
            self._numbers += 1
            self._sum += value
            self._low, self._high = min(self._low, value), max(self._high, value)
        elif self._kind is Type.TRUTH:
            self._names.add("true" if truth(cell) else "false")
        else:
            self._names.add(text(cell, 60))

    def judge(self, *, right: bool) -> None:
        """Its value on a gold row."""
        self._gold += 1
        self._right += right

    def figures(self) -> FieldFigures:
        right = wilson(self._right, self._gold) if self._gold else None
        shown = FieldFigures(self._name, self._filled, right)
        if not self._numbers:
            return replace(shown, top=self._names.top(SHOWN))
        mean = self._sum / self._numbers
        return replace(shown, low=self._low, mean=mean, high=self._high)
