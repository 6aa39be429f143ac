"""Bounds of a share that was counted. Knows no row."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from penstock.annotation.records import Interval

HALVINGS = 50  # of an interval, to find a bound


def quantile(level: float) -> float:
    """How many standard errors either side hold `level` of a normal distribution."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(right: int, of: int, level: float = 0.95) -> Interval:
    """The score interval of Wilson (1927) for `right` of `of`. Its middle is the share itself;
    where nothing was counted it is 0 to 1."""
    if of <= 0:
        return Interval(0.0, 0.5, 1.0)
    share, z = right / of, quantile(level)
    weight = 1 + z * z / of
    center = (share + z * z / (2 * of)) / weight
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / weight
    return Interval(min(share, max(0.0, center - half)), share, max(share, min(1.0, center + half)))


def anytime(right: int, of: int, level: float = 0.95) -> Interval:
    """Bounds that hold at every look at once, so that one may look after each row and stop by what
    one sees; wider than Wilson's, which hold at one look.

    A confidence sequence from the uniform mixture of likelihood ratios (Robbins 1970).
    """
    if of <= 0:
        return Interval(0.0, 0.5, 1.0)
    share = right / of
    mixture = math.lgamma(right + 1) + math.lgamma(of - right + 1) - math.lgamma(of + 2)
    least = mixture + math.log(1 - level)  # log-likelihood of a share that is still possible

    def possible(p: float) -> bool:
        known = right * math.log(p) if right else 0.0
        return known + ((of - right) * math.log1p(-p) if right < of else 0.0) > least

    low = 0.0 if right == 0 else _edge(possible, share, 0.0)
    high = 1.0 if right == of else _edge(possible, share, 1.0)
    return Interval(low, share, high)


def _edge(possible: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where it ends to be possible, between a share that is and one that is not."""
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return outside
