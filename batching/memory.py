"""Where rows live in the arena: their own region, and what they share or copy of others.

A part of the arena is kept for the express lane. Knows no queue and no step.
"""

from __future__ import annotations

from batching.arena import Arena
from batching.beginnings import Tokens
from batching.prefixes import Prefix, Prefixes
from batching.requests import EngineLane
from models.runner import Place, Region

#: What bulk leaves to the express lane.
EXPRESS_SHARE = 1 / 8


class Memory:
    """The arena with what is known of its contents. `released` grows when something gets free."""

    def __init__(self, size: int, min_prefix: int, cache_share: float) -> None:
        self._min_prefix = min_prefix
        self._cache_share = cache_share
        self.size = size
        self.bulk_part = max(1, size - int(size * EXPRESS_SHARE))
        self.released = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._arena = Arena(self.size)
        self.prefixes = Prefixes(self._arena, self._min_prefix, int(self.size * self._cache_share))
        self._copied: list[Prefix] = []
        self.released += 1

    def place(
        self,
        length: int,
        lane: EngineLane,
        prefix: Prefix | None = None,
        known: int = 0,
        *,
        copies: bool = False,
    ) -> Place | None:
        """Room for `length` more tokens than the `known` ones of a prefix, which are shared (until
        `leave`) or copied (then they are in the region, too). None: there is none."""
        if prefix is not None:
            self.prefixes.use(prefix)
        own = self._take(length + known if copies else length, lane)
        if prefix is None:
            return None if own is None else Place(own)
        if own is None:
            self.prefixes.release(prefix)
            return None
        part = Region(prefix.region.start, known)
        if copies:
            self._copied.append(prefix)
            return Place(own, copy=part)
        return Place(own, prefix=part)

    def settle(self) -> None:
        """The last plan was run: what it copies has been copied."""
        for prefix in self._copied:
            self.released += 1
            self.prefixes.release(prefix)
        self._copied.clear()

    def leave(self, region: Region, prefix: Prefix | None, keep: Tokens = ()) -> None:
        """A row has left its region, and the prefix that it shared; `keep` are the first tokens in
        the region, if they may be of use."""
        self.released += 1
        if prefix is not None:
            self.prefixes.release(prefix)
        if keep:
            self.prefixes.keep(keep, region)
        else:
            self._arena.give(region)

    def leave_prefix(self, prefix: Prefix) -> None:
        """The row that read a prefix is over; others may share it."""
        self.released += 1
        prefix.written = True
        self.prefixes.release(prefix)

    @property
    def cached(self) -> int:
        return self.prefixes.idle_tokens

    @property
    def used(self) -> int:
        return self.size - self._arena.free - self.cached

    def _take(self, length: int, lane: EngineLane) -> Region | None:
        """Bulk's rows lie low, express ones high. One that needs more than bulk's part has it all:
        nothing else runs then."""
        express = lane is EngineLane.EXPRESS
        below = self.size if express or length > self.bulk_part else self.bulk_part
        while True:
            if express:
                region = self._arena.take_high(length, self.bulk_part)
            else:
                region = self._arena.take(length, below)
            if region is not None or self._arena.free + self.cached < length:
                return region
            if not self.prefixes.evict(below):
                return None
