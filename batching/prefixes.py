"""Regions whose tokens are known: prefixes that rows share, and prompts of earlier turns.

Counts who uses them. What nobody uses stays as long as there is room, the latest used longest.
Knows no row and no queue.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from batching.arena import Arena
from batching.beginnings import Tokens, common_length
from models.runner import Region


@dataclass(slots=True, eq=False)
class Prefix:
    """Keys and values of some tokens. It may be shared by rows of the step that reads the last of
    them, and copied when that step is over."""

    tokens: Tokens
    region: Region
    users: int = 1
    ready: bool = False  #: may be shared
    written: bool = False  #: may be copied
    paid: bool = False  #: a row has been charged for reading it
    express: bool = False  #: is read in the express lane's turn


class Prefixes:
    """All of an arena. `least`: tokens of the shortest worth keeping, 0: none is; `most_idle`:
    positions that the unused ones may take."""

    def __init__(self, arena: Arena, least: int, most_idle: int) -> None:
        self._arena = arena
        self._least = least
        self._most_idle = most_idle
        self._index: dict[Tokens, list[Prefix]] = {}  #: by the first `least` tokens
        self._idle: OrderedDict[Prefix, None] = OrderedDict()  #: the latest used last
        self.idle_tokens = 0

    def match(
        self, prompt: Tokens, *, to_copy: bool, express: bool = False
    ) -> tuple[Prefix | None, int]:
        """The one that begins like a prompt for the most tokens, and how many. At least the
        prompt's last token is left to read. An express row is never told to wait for one that
        bulk still reads."""
        best, most = None, len(prompt) - 1
        known = self._least - 1
        for prefix in self._bucket(prompt):
            in_time = prefix.ready or prefix.express or not express
            if prefix.written or (in_time and not to_copy):
                length = common_length(prefix.tokens, prompt, most)
                if length > known:
                    best, known = prefix, length
        return (best, known) if best is not None else (None, 0)

    def add(self, tokens: Tokens, region: Region, *, express: bool = False) -> Prefix:
        """One that is to be read, by its first user."""
        prefix = Prefix(tokens, region, express=express)
        self._index.setdefault(tokens[: self._least], []).append(prefix)
        return prefix

    def keep(self, tokens: Tokens, region: Region) -> None:
        """Take over the region of a row that ended; its first tokens are these."""
        if not self._least or len(tokens) < self._least or self._has(tokens):
            self._arena.give(region)
            return
        for prefix in list(self._bucket(tokens)):
            if not prefix.users and prefix.tokens == tokens[: len(prefix.tokens)]:
                self._evict(prefix)  # the longer one serves whoever it served
        prefix = self.add(tokens, self._arena.shrink(region, len(tokens)))
        prefix.ready = prefix.written = prefix.paid = True
        self.release(prefix)

    def use(self, prefix: Prefix) -> None:
        if not prefix.users:
            del self._idle[prefix]
            self.idle_tokens -= prefix.region.length
        prefix.users += 1

    def release(self, prefix: Prefix) -> None:
        prefix.users -= 1
        if prefix.users:
            return
        self._idle[prefix] = None
        self.idle_tokens += prefix.region.length
        for idle in list(self._idle) if self.idle_tokens > self._most_idle else ():
            # One that is fresh waits for the row that it was read for.
            if self.idle_tokens > self._most_idle and idle.paid:
                self._evict(idle)

    def evict(self, below: int) -> bool:
        """Free the one that was unused longest and lies below a position. False: there is none."""
        for prefix in self._idle:
            if prefix.region.start < below:
                self._evict(prefix)
                return True
        return False

    def _has(self, tokens: Tokens) -> bool:
        return any(
            prefix.written and prefix.tokens[: len(tokens)] == tokens
            for prefix in self._bucket(tokens)
        )

    def _bucket(self, tokens: Tokens) -> list[Prefix]:
        return self._index.get(tokens[: self._least], []) if self._least else []

    def _evict(self, prefix: Prefix) -> None:
        del self._idle[prefix]
        self.idle_tokens -= prefix.region.length
        key = prefix.tokens[: self._least]
        self._index[key].remove(prefix)
        if not self._index[key]:
            del self._index[key]
        self._arena.give(prefix.region)
