"""How sure the answers are and how right that is, in bounded memory. Knows probabilities alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.annotation.records import Interval
from penstock.annotation.trust.calibration import Calibration, Pair, calibration
from penstock.annotation.trust.intervals import wilson

COLUMNS = 20  # of the histogram
#: Probabilities are counted by so many steps of log-odds, where those near 1 are still told apart.
STEPS, FURTHEST = 50, 14.0
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class ReviewLine:
    """If people look at the `rows` answers (a `share` of all) whose probability is below `below`:
    how right the rest is, and how right all are then. `rest` is None where no gold row is left."""

    share: float
    rows: int
    below: float
    rest: Interval | None
    whole: Interval


@dataclass(frozen=True, slots=True)
class _Cut:
    """A threshold, and the rows, gold rows and right ones below it."""

    step: int
    rows: int
    gold: int
    right: int


class Certainty:
    """Accumulates probabilities, and whether the answer was right where gold says so."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns = [0] * COLUMNS
        self._all: Counter[int] = Counter()
        self._gold: Counter[int] = Counter()
        self._right: Counter[int] = Counter()

    def add(self, probability: float, right: bool | None) -> None:
        probability = min(max(probability, 0.0), 1.0)
        step = _step(probability)
        self.rows += 1
        self._columns[min(int(probability * COLUMNS), COLUMNS - 1)] += 1
        self._all[step] += 1
        if right is not None:
            self._gold[step] += 1
            self._right[step] += right

    def histogram(self) -> tuple[tuple[float, float, int], ...]:
        """Low, high, rows."""
        return tuple(
            (place / COLUMNS, (place + 1) / COLUMNS, count)
            for place, count in enumerate(self._columns)
        )

    def calibration(self) -> Calibration | None:
        """Of the probabilities as they stand in the table; None without gold rows."""
        return calibration(self._pairs()) if self._gold else None

    def review(self) -> tuple[ReviewLine, ...]:
        """For each share that the probabilities can tell apart; empty without gold rows."""
        if not self._gold:
            return ()
        cuts = self._cuts()
        nearest = [
            min(cuts, key=lambda cut: abs(cut.rows - wanted * self.rows)) for wanted in SHARES
        ]
        return tuple(self._line(cut) for cut in dict.fromkeys(nearest))

    def _pairs(self) -> Iterator[Pair]:
        for step, rows in self._gold.items():
            probability, right = _probability(step), self._right[step]
            for place in range(rows):
                yield probability, place < right

    def _cuts(self) -> list[_Cut]:
        cuts: list[_Cut] = []
        rows = gold = right = 0
        for step in sorted(self._all):
            cuts.append(_Cut(step, rows, gold, right))
            rows += self._all[step]
            gold += self._gold[step]
            right += self._right[step]
        return cuts

    def _line(self, cut: _Cut) -> ReviewLine:
        gold, right = self._gold.total(), self._right.total() - cut.right
        left = gold - cut.gold
        return ReviewLine(
            share=cut.rows / self.rows,
            rows=cut.rows,
            below=_probability(cut.step - 0.5),
            rest=wilson(right, left) if left else None,
            whole=wilson(right + cut.gold, gold),
        )


def _step(probability: float) -> int:
    if probability in {0.0, 1.0}:
        return round(math.copysign(FURTHEST, probability - 0.5) * STEPS)
    odds = math.log(probability / (1 - probability))
    return round(min(max(odds, -FURTHEST), FURTHEST) * STEPS)


def _probability(step: float) -> float:
    return 1 / (1 + math.exp(-step / STEPS))
