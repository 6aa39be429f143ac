"""Whether probabilities mean what they say: bins, expected calibration error, and what review buys.

A pair is the probability of an answer and whether it was right. Knows no label and no row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

from penstock.annotation.records import Interval
from penstock.annotation.trust.intervals import wilson

Pair = tuple[float, bool]

BINS = 10
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
TINY = 1e-12  # keeps the logarithm of a probability finite


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows whose probability is in (low, high]: how sure they were (mean), how many were
    right (share)."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float

    @property
    def interval(self) -> Interval:
        """Of the accuracy, 95 %."""
        return wilson(round(self.accuracy * self.rows), self.rows)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of the answers that were given. `bins`: those that have rows, equally wide.

    `ece`: expected calibration error (Guo et al. 2017). `noise`: what it would be on average with
    so many rows if every probability were true, so that below it nothing can be told apart.
    `nll` and `brier` are of right against wrong.
    """

    bins: tuple[Bin, ...]
    ece: float
    nll: float
    brier: float
    rows: int
    noise: float = 0.0

    @property
    def accuracy(self) -> float:
        """The share that was right; 1 of no rows."""
        return (
            sum(each.rows * each.accuracy for each in self.bins) / self.rows if self.rows else 1.0
        )


class ReviewPoint(NamedTuple):
    """What looking at the `share` least certain rows buys: the accuracy of what is `left`, and of
    all `together` where people answer what they look at rightly."""

    share: float
    left: float
    together: float

    def interval(self, rows: int) -> Interval:
        """Of `left`, 95 %, where the curve was drawn from so many rows."""
        left = rows - round(self.share * rows)
        return wilson(round(self.left * left), left)


def calibration(pairs: Iterable[Pair], bins: int = BINS) -> Calibration:
    """Measure in one pass; no pair is kept."""
    counts, sums, rights = [0] * bins, [0.0] * bins, [0] * bins
    nll = brier = 0.0
    for confidence, right in pairs:
        at = min(bins - 1, max(0, math.ceil(confidence * bins) - 1))
        counts[at] += 1
        sums[at] += confidence
        rights[at] += right
        nll -= math.log(max(confidence if right else 1 - confidence, TINY))
        brier += (confidence - right) ** 2
    found = tuple(
        Bin(at / bins, (at + 1) / bins, rows, sums[at] / rows, rights[at] / rows)
        for at, rows in enumerate(counts)
        if rows
    )
    rows = max(1, sum(counts))
    ece = sum(each.rows * abs(each.accuracy - each.confidence) for each in found) / rows
    noise = sum(each.rows * _expected_miss(each) for each in found) / rows
    return Calibration(found, ece, nll / rows, brier / rows, sum(counts), noise)


def _expected_miss(each: Bin) -> float:
    """The mean of |accuracy - confidence| by chance alone, where the confidence is true."""
    share = min(max(each.confidence, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / each.rows * 2 / math.pi)


def review_curve(
    pairs: Iterable[Pair], shares: Iterable[float] = SHARES
) -> tuple[ReviewPoint, ...]:
    """Review the x % least certain, reach y accuracy. Equally certain rows count with their mean,
    so that the order of the table does not matter."""
    ordered = sorted(pairs)
    rights = [0.0, *accumulate(_evened(ordered))]  # of the least certain, how many are right
    rows = len(ordered)
    if not rows:
        return ()
    points = []
    for share in shares:
        looked = round(share * rows)
        left = rows - looked
        good = rights[rows] - rights[looked]
        points.append(ReviewPoint(share, good / left if left else 1.0, (good + looked) / rows))
    return tuple(points)


def _evened(ordered: list[Pair]) -> Iterable[float]:
    """Each pair's right, as the mean of those equally certain."""
    for _, group in groupby(ordered, key=lambda pair: pair[0]):
        alike = [right for _, right in group]
        yield from [sum(alike) / len(alike)] * len(alike)
