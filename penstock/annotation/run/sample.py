"""Rows drawn from a table, the same ones every time, in one pass and little memory: evenly, or by
stratum for a pilot.

Knows numbers of rows and what they are sorted by; no table.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_STRATA = 256  # more kinds of gold than this are one
Stratum = tuple[str, ...]
REST: Stratum = ("gold", "")


def draw_of(number: int, seed: int) -> int:
    """A row's draw: evenly spread, and the same every time. The lowest ones are a sample."""
    return int.from_bytes(blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "big")


@dataclass
class Drawn(Generic[T]):
    """The rows with the lowest draws, and something of each, as a heap whose first is the highest:
    an even sample of all that are offered."""

    rows: int = 0
    lowest: list[tuple[int, int, T]] = field(default_factory=list)

    def offer(self, draw: int, number: int, most: int, told: T) -> None:
        self.rows += 1
        if len(self.lowest) < most:
            heapq.heappush(self.lowest, (-draw, number, told))
        else:
            heapq.heappushpop(self.lowest, (-draw, number, told))

    def take(self, count: int) -> list[int]:
        """The numbers of so many, those with the lowest draws."""
        return [number for _, number, _ in sorted(self.lowest, reverse=True)[:count]]

    @property
    def taken(self) -> dict[int, T]:
        """What was told of each row that is kept."""
        return {number: told for _, number, told in self.lowest}


class Sampler:
    """Offer it every row. Half of the sample at most are gold rows, by label, so that accuracy is
    told early; the others are drawn by length, in steps of doubling."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._strata: dict[Stratum, Drawn[None]] = {}

    def offer(self, number: int, gold: str | None, length: int) -> None:
        stratum: Stratum = ("gold", gold) if gold else ("length", str(length.bit_length()))
        if stratum not in self._strata and len(self._strata) >= MAX_STRATA:
            stratum = REST if gold else ("length", "")
        drawn = self._strata.setdefault(stratum, Drawn())
        drawn.offer(draw_of(number, self._seed), number, self._size, None)

    @property
    def rows(self) -> list[int]:
        """The numbers of the drawn rows, ascending; all there are where these are fewer."""
        sizes = {stratum: drawn.rows for stratum, drawn in self._strata.items()}
        gold = {stratum: rows for stratum, rows in sizes.items() if stratum[0] == "gold"}
        plain = {stratum: rows for stratum, rows in sizes.items() if stratum[0] != "gold"}
        others = min(sum(plain.values()), self._size - min(sum(gold.values()), self._size // 2))
        shares = apportion(plain, others) | apportion(gold, self._size - others)
        taken = [self._strata[stratum].take(count) for stratum, count in shares.items()]
        return sorted(number for numbers in taken for number in numbers)


def apportion(sizes: Mapping[Stratum, int], seats: int) -> dict[Stratum, int]:
    """So many seats of each: one for each as far as they go, the largest first, then by size
    (highest averages, D'Hondt); no more than there are."""
    ranked = sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))
    given = dict.fromkeys(ranked[:seats], 1)
    left = min(seats, sum(sizes.values())) - len(given)
    heap = [(-sizes[name] / 2, name) for name in given if sizes[name] > 1]
    heapq.heapify(heap)
    for _ in range(left):
        _, name = heapq.heappop(heap)
        given[name] += 1
        if given[name] < sizes[name]:
            heapq.heappush(heap, (-sizes[name] / (given[name] + 1), name))
    return given
