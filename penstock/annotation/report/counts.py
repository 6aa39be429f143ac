"""Counting names and pairs of names in bounded memory. Knows no table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KEPT = 200  # names that are counted apart


@dataclass(frozen=True, slots=True)
class Top:
    """The most frequent names, and how many all others were."""

    counts: tuple[tuple[str, int], ...]
    others: int
    total: int


class Names:
    """How often each name came. Those beyond the first `KEPT` are counted together."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._counts: dict[str, int] = dict.fromkeys(known, 0)
        self._others = 0

    def add(self, name: str) -> None:
        if name in self._counts or len(self._counts) < KEPT:
            self._counts[name] = self._counts.get(name, 0) + 1
        else:
            self._others += 1

    def top(self, most: int) -> Top:
        ranked = sorted(self._counts.items(), key=lambda item: -item[1])
        others = self._others + sum(count for _, count in ranked[most:])
        return Top(tuple(ranked[:most]), others, self._others + sum(self._counts.values()))


class Pairs:
    """How often two names came together. None stands for all names beyond the first `KEPT`."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = tuple(known)
        self._kept = dict.fromkeys(self._known)
        self.counts: Counter[tuple[str | None, str | None]] = Counter()

    def add(self, one: str, other: str) -> None:
        self.counts[self._name(one), self._name(other)] += 1

    def frequent(self, most: int) -> tuple[str, ...]:
        """The names that came most: the known ones in their order, then others by frequency."""
        sums = self._sums()
        ranked = sorted((name for name in self._kept if sums[name]), key=lambda name: -sums[name])
        shown = dict.fromkeys(ranked[:most])
        return tuple(dict.fromkeys((*(name for name in self._known if name in shown), *shown)))

    def folded(self, shown: Iterable[str]) -> Mapping[tuple[str | None, str | None], int]:
        """The counts with every other name as None."""
        names = set(shown)
        folded: Counter[tuple[str | None, str | None]] = Counter()
        for (one, other), count in self.counts.items():
            folded[one if one in names else None, other if other in names else None] += count
        return folded

    def _name(self, name: str) -> str | None:
        if name not in self._kept:
            if len(self._kept) >= KEPT:
                return None
            self._kept[name] = None
        return name

    def _sums(self) -> Counter[str | None]:
        sums: Counter[str | None] = Counter()
        for (one, other), count in self.counts.items():
            sums[one] += count
            sums[other] += count
        return sums
