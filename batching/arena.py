"""Hands out contiguous regions of the key/value arena: best fit, neighbors that are free join.

Pure bookkeeping of positions: knows no row and no memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from models.runner import Region


class Arena:
    """Positions 0 to `size`. Free blocks never touch each other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = 0
        self._lengths: dict[int, int] = {}  #: of each free block, by its start
        self._starts: dict[int, int] = {}  #: of each free block, by its end
        self._by_length: list[tuple[int, int]] = []  #: (length, start), sorted
        self._add(0, size)

    def take(self, length: int, below: int | None = None) -> Region | None:
        """The beginning of the smallest block that has room for it below a position."""
        limit = self.size if below is None else below
        for size, start in self._by_length[bisect_left(self._by_length, (length,)) :]:
            if start + length <= limit:
                self._remove(start, size)
                self._add(start + length, size - length)
                return Region(start, length)
        return None

    def take_high(self, length: int, above: int) -> Region | None:
        """The end of the smallest block that has room for it above a position, or of any."""
        fitting = self._by_length[bisect_left(self._by_length, (length,)) :]
        if not fitting:
            return None
        high = (block for block in fitting if sum(block) - length >= above)
        size, start = next(high, fitting[0])
        self._remove(start, size)
        self._add(start, size - length)
        return Region(start + size - length, length)

    def give(self, region: Region) -> None:
        """Take a region back."""
        start, end = region.start, region.end
        if (before := self._starts.get(start)) is not None:
            self._remove(before, start - before)
            start = before
        if (after := self._lengths.get(end)) is not None:
            self._remove(end, after)
            end += after
        self._add(start, end - start)

    def shrink(self, region: Region, length: int) -> Region:
        """Take the end of a region back. Returns what is left of it."""
        if length < region.length:
            self.give(Region(region.start + length, region.length - length))
        return Region(region.start, length)

    def _add(self, start: int, length: int) -> None:
        if length:
            self._lengths[start] = length
            self._starts[start + length] = start
            insort(self._by_length, (length, start))
            self.free += length

    def _remove(self, start: int, length: int) -> None:
        del self._lengths[start]
        del self._starts[start + length]
        del self._by_length[bisect_left(self._by_length, (length, start))]
        self.free -= length
