"""How far annotators agree: majority, Krippendorff's alpha and Cohen's kappa, for nominal values.

What is measured is counted, so that a long table takes no more memory than its kinds of rows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from penstock.annotation.records import Interval
from penstock.annotation.trust.intervals import quantile

#: The values of one row, one for each annotator who said something; and how many rows have them.
Counts = Counter[tuple[Hashable, ...]]


def key(value: object) -> Hashable:
    """What equal values share: of a list of labels the set, of fields their JSON."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple):
        return tuple(sorted({json.dumps(each, sort_keys=True) for each in value}))
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return (type(value) is bool, value) if isinstance(value, Hashable) else repr(value)


def majority(values: Sequence[object]) -> tuple[list[object], int]:
    """What most say, in the order it was first said (more than one where they tie), and how many
    say it. `values`: at least one, none missing."""
    counts = Counter(map(key, values))
    most = max(counts.values())
    first = {key(value): value for value in reversed(values)}
    return [first[name] for name, count in counts.items() if count == most], most


def krippendorff_alpha(units: Iterable[Sequence[object]], level: float = 0.95) -> Interval | None:
    """Of rows, each with what every annotator said, None where he said nothing.

    1: always the same; 0: as by chance. Krippendorff (2011), with an interval by the jackknife
    over rows. None where no row has two values, or all values are the same.
    """
    counts: Counts = Counter()
    for unit in units:
        said = tuple(sorted((key(v) for v in unit if v is not None), key=repr))
        if len(said) > 1:
            counts[said] += 1
    return _jackknife(counts, _Coincidences(counts).alpha_without, level)


def cohen_kappa(a: Iterable[object], b: Iterable[object], level: float = 0.95) -> Interval | None:
    """Of two annotators' values of the same rows; rows where one said nothing are left out.

    Cohen (1960), with an interval by the jackknife over rows. None where no row has both, or both
    always say one and the same value.
    """
    counts: Counts = Counter(
        (key(one), key(other))
        for one, other in zip(a, b, strict=True)
        if one is not None and other is not None
    )
    return _jackknife(counts, _Contingency(counts).kappa_without, level)


class _Coincidences:
    """Sums from which alpha follows, also where one row is taken out."""

    def __init__(self, counts: Counts) -> None:
        self._totals: Counter[Hashable] = Counter()
        self._agreeing = 0.0
        for unit, rows in counts.items():
            for value in unit:
                self._totals[value] += rows
            self._agreeing += rows * _agreeing(unit)
        self._values = sum(self._totals.values())
        self._chance = sum(count * (count - 1) for count in self._totals.values())

    def alpha_without(self, unit: tuple[Hashable, ...] = ()) -> float | None:
        values, chance = self._values - len(unit), self._chance
        for value, count in Counter(unit).items():
            before = self._totals[value]
            chance += (before - count) * (before - count - 1) - before * (before - 1)
        possible = values * (values - 1) - chance
        if possible <= 0:
            return None
        agreeing = self._agreeing - (_agreeing(unit) if unit else 0.0)
        return ((values - 1) * agreeing - chance) / possible


def _agreeing(unit: tuple[Hashable, ...]) -> float:
    """Pairs of equal values, each value's share counted once."""
    return sum(n * (n - 1) for n in Counter(unit).values()) / (len(unit) - 1)


class _Contingency:
    """Sums from which kappa follows, also where one row is taken out."""

    def __init__(self, counts: Counts) -> None:
        self._rows = sum(counts.values())
        self._equal = sum(rows for (one, other), rows in counts.items() if one == other)
        self._ones: Counter[Hashable] = Counter()
        self._others: Counter[Hashable] = Counter()
        for (one, other), rows in counts.items():
            self._ones[one] += rows
            self._others[other] += rows
        self._chance = sum(rows * self._others[value] for value, rows in self._ones.items())

    def kappa_without(self, unit: tuple[Hashable, ...] = ()) -> float | None:
        rows, equal, chance = self._rows, self._equal, self._chance
        if unit:
            one, other = unit
            rows, equal = rows - 1, equal - (one == other)
            chance -= self._others[one] + self._ones[other] - (one == other)
        possible = rows * rows - chance
        return (rows * equal - chance) / possible if possible > 0 else None


def _jackknife(
    counts: Counts, without: Callable[[tuple[Hashable, ...]], float | None], level: float
) -> Interval | None:
    """The statistic of all rows, and how far leaving one out moves it (Efron 1982)."""
    middle, rows = without(()), sum(counts.values())
    if middle is None:
        return None
    left_out = [(found, n) for unit, n in counts.items() if (found := without(unit)) is not None]
    mean = sum(value * n for value, n in left_out) / max(1, sum(n for _, n in left_out))
    spread = sum(n * (value - mean) ** 2 for value, n in left_out) * (rows - 1) / rows
    half = quantile(level) * math.sqrt(spread) if rows > 1 else 2.0
    return Interval(max(-1.0, middle - half), middle, min(1.0, middle + half))
