"""When a run ends, as an interval, from how its speed has varied so far. Knows moments and counts.

The past is cut into stretches of equally many rows. What the pace does from one to the next tells
noise (which averages out over what is left) from drift (which grows with what is left).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from penstock.annotation.records import Interval

MOST_POINTS = 256  # kept; every second one goes when there are more
STRETCHES = 32
FEWEST = 4  # stretches, before which nothing is said
Z = 1.2816  # 80 % of a normal distribution lie within so many standard deviations
UNFORESEEN = 0.3  # relative standard deviation, over a whole run, of what no past can tell
LEAST_GAIN = 0.15  # of the latest stretch in the level, so that a slow trend is not averaged away
FURTHEST = 2.0  # a trend is not believed to go on for longer than so many times its past,
STEEPEST = 1.0  # nor to change the pace by more than this (logarithm)
LEAST, MOST = 0.02, 1.2  # relative standard deviations that are never undercut, or exceeded


class Forecast:
    """Feed it every look at the run; it keeps a bounded number of them."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []  # the last one is the latest look
        self._stride = 1  # looks from one kept point to the next
        self._looks = 0

    def add(self, at: float, done: int) -> None:
        """At the second `at`, so many rows were done. Both never fall."""
        points = self._points
        if len(points) == 1 and points[0][1] == done:
            points[0] = (at, done)  # waiting in the queue is not pace
            return
        if len(points) > 1 and self._looks % self._stride:
            points.pop()
        self._looks += 1
        points.append((at, done))
        if len(points) > MOST_POINTS:
            del points[1:-1:2]
            self._stride *= 2

    def left(self, now: float, total: int) -> Interval | None:
        """Seconds until `total` rows are done, in 80 of 100 cases; None where it cannot be said."""
        if len(self._points) <= 2 * FEWEST:
            return None
        done = self._points[-1][1]
        rows_left = total - done
        if rows_left <= 0:
            return Interval(0.0, 0.0, 0.0)
        count = min(STRETCHES, len(self._points) // 2)
        rows = (done - self._points[0][1]) / count
        if rows <= 0:
            return None
        paces = self._paces(now, rows, count)
        ahead = rows_left / rows
        level, spread = _outlook(paces, ahead)
        middle = ahead * level
        factor = math.exp(Z * spread)
        return Interval(middle / factor, middle, middle * factor)

    def _paces(self, now: float, rows: float, count: int) -> list[float]:
        """Seconds of each stretch; the last one lasts until now."""
        first = self._points[0]
        ends = [self._when(first[1] + rows * number) for number in range(1, count)]
        moments = [first[0], *ends, max(now, self._points[-1][0])]
        return [max(1e-9, b - a) for a, b in pairwise(moments)]

    def _when(self, done: float) -> float:
        """The moment at which so many rows were done, between two looks."""
        after = bisect_right(self._points, done, key=lambda point: point[1])
        (t0, d0), (t1, d1) = (
            self._points[after - 1],
            self._points[min(after, len(self._points) - 1)],
        )
        return t1 if d1 <= d0 else t0 + (t1 - t0) * (done - d0) / (d1 - d0)


def _outlook(paces: Sequence[float], ahead: float) -> tuple[float, float]:
    """Seconds of a stretch to come, and the relative standard deviation of their mean over
    `ahead` stretches: by a level that walks at random (Harvey 1989), and a trend that may go on."""
    noise, drift = _variances(paces)
    ratio = drift / noise if noise > 0 else math.inf
    gain = 1.0 if ratio == math.inf else (math.sqrt(ratio * ratio + 4 * ratio) - ratio) / 2
    gain = max(gain, LEAST_GAIN)
    level = paces[0]
    for number, pace in enumerate(paces[1:], 2):
        level += max(gain, 1 / number) * (pace - level)
    known = max(gain, 1 / len(paces)) * noise
    variance = known + noise / max(ahead, 1.0) + drift * (ahead + 1) / 3 + _trend(paces, ahead) ** 2
    unforeseen = UNFORESEEN * ahead / (ahead + len(paces))
    return level, min(MOST, math.sqrt(variance + unforeseen**2 + LEAST**2))


def _variances(paces: Sequence[float]) -> tuple[float, float]:
    """Of the noise in a stretch, and of the drift over one, relative; by moments.

    Each stretch is a mean over a walk, so that steps have the variance 2/3 drift + 2 noise and
    follow each other with the covariance 1/6 drift - noise.
    """
    steps = [2 * (b - a) / (a + b) for a, b in pairwise(paces)]
    square = sum(step * step for step in steps) / len(steps)
    product = sum(a * b for a, b in pairwise(steps)) / (len(steps) - 1)
    drift = max(0.0, square + 2 * product)
    return max(0.0, drift / 6 - product), drift


def _trend(paces: Sequence[float], ahead: float) -> float:
    """How far the mean to come lies from the present if the pace goes on changing as it did."""
    span = min(len(paces), max(2 * FEWEST, round(ahead)))
    half = span // 2
    older, newer = sum(paces[-span:-half]) / (span - half), sum(paces[-half:]) / half
    change = 2 * (newer - older) / (newer + older) * min(ahead / span, FURTHEST)
    return min(max(change, -STEEPEST), STEEPEST)
