"""Rows that run on a packed runner: who still reads its prompt, who decodes, who takes a slot.

Counts instead of loops: a step costs the same however many rows decode. Knows no queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batching.prefixes import Prefix
from batching.requests import EngineLane
from batching.sequence import Sequence
from models.runner import Place, Purpose, Row


@dataclass(slots=True, eq=False)
class Live:
    """A row that runs. `sequence` is whose it is, or the one that a prefix is read for."""

    row: Row
    place: Place
    sequence: Sequence
    prefix: Prefix | None  #: the one that it shares, or that it reads
    unread: int  #: tokens of the prompt
    nodes: int = 0  #: of a scored row's tree, read with the prompt's last token

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def lane(self) -> EngineLane:
        return self.sequence.lane

    @property
    def is_prefix(self) -> bool:
        return self.row.purpose is Purpose.PREFIX

    def chunk(self, budget: int, *, first: bool) -> int:
        """How many tokens of the prompt to read now. A scored row's last one goes with its tree,
        and may pass the budget when it is the `first` of a step: it never gets smaller."""
        if budget < 1:
            return 0
        if self.unread + self.nodes <= budget:
            return self.unread
        if not self.nodes:
            return budget
        if self.unread > 1:
            return min(budget, self.unread - 1)
        return 1 if first else 0


class LiveRows:
    """By id, and by lane what each of them does."""

    def __init__(self) -> None:
        self._rows: dict[str, Live] = {}
        self._slots = dict.fromkeys(EngineLane, 0)
        self._reading: dict[EngineLane, dict[str, Live]] = {lane: {} for lane in EngineLane}
        self._decoding: dict[EngineLane, set[str]] = {lane: set() for lane in EngineLane}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Live]:
        return iter(self._rows.values())

    def find(self, id: str) -> Live | None:
        return self._rows.get(id)

    def slots(self, lane: EngineLane) -> int:
        """Rows of a lane, prefixes included."""
        return self._slots[lane]

    def reading(self, lane: EngineLane) -> list[Live]:
        return list(self._reading[lane].values())

    def decoding(self, lane: EngineLane) -> set[str]:
        return self._decoding[lane]

    def decoding_rows(self) -> int:
        return sum(map(len, self._decoding.values()))

    def add(self, live: Live) -> None:
        self._rows[live.id] = live
        self._slots[live.lane] += 1
        self._reading[live.lane][live.id] = live

    def read(self, live: Live, tokens: int) -> None:
        """Some more of its prompt is read by the present step; after the last it decodes."""
        live.unread -= tokens
        if live.unread:
            return
        del self._reading[live.lane][live.id]
        if live.row.purpose is Purpose.GENERATE:
            self._decoding[live.lane].add(live.id)
        elif live.is_prefix and live.prefix is not None:
            live.prefix.ready = True

    def remove(self, live: Live) -> None:
        del self._rows[live.id]
        self._slots[live.lane] -= 1
        self._reading[live.lane].pop(live.id, None)
        self._decoding[live.lane].discard(live.id)

    def clear(self) -> list[Live]:
        gone = list(self._rows.values())
        for live in gone:
            self.remove(live)
        return gone
