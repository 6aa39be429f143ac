"""The waiting queue of one lane of the packed scheduler: by arrival, and the same by group, so that
rows that share a prefix go on together. Knows no time but ages, and no room.

Every operation costs the same however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from batching.beginnings import Tokens
from batching.sequence import Sequence

#: Rows that are tried when the first does not fit.
LOOK_AHEAD = 8
#: A group is looked at for a common beginning once in so many rows, and so many at a time.
SAMPLE = 16


@dataclass(slots=True)
class _Group:
    rows: OrderedDict[str, Sequence] = field(default_factory=OrderedDict)
    until_look: int = 0


class Arrivals:
    """Sequences that wait."""

    def __init__(self, age_limit: float) -> None:
        self._age_limit = age_limit
        self._company: OrderedDict[str, Sequence] = OrderedDict()
        self._alone: OrderedDict[str, Sequence] = OrderedDict()
        self._groups: dict[str, _Group] = {}
        self._current: str | None = None  #: the group whose prefix was shared last

    def __contains__(self, id: str) -> bool:
        return id in self._company or id in self._alone

    def __len__(self) -> int:
        return len(self._company) + len(self._alone)

    @property
    def has_alone(self) -> bool:
        return bool(self._alone)

    @property
    def has_company(self) -> bool:
        return bool(self._company)

    @property
    def oldest(self) -> float | None:
        """When the first of them all arrived."""
        firsts = (next(iter(line.values()), None) for line in (self._company, self._alone))
        return min((first.arrived for first in firsts if first is not None), default=None)

    def add(self, sequence: Sequence) -> None:
        if sequence.isolated:
            self._alone[sequence.id] = sequence
            return
        self._company[sequence.id] = sequence
        if (name := sequence.request.group) is not None:
            self._groups.setdefault(name, _Group()).rows[sequence.id] = sequence

    def put_back(self, rows: list[Sequence]) -> None:
        """Requeue in front; those that wait have mostly arrived later."""
        for sequence in sorted(rows, key=_number, reverse=True):
            self.add(sequence)
            for line in self._lines(sequence):
                line.move_to_end(sequence.id, last=False)
        for line in {id(line): line for row in rows for line in self._lines(row)}.values():
            _restore_order(line, len(rows))

    def remove(self, id: str) -> Sequence | None:
        if (sequence := self._alone.pop(id, None)) is not None:
            return sequence
        if (sequence := self._company.pop(id, None)) is None:
            return None
        if (name := sequence.request.group) is not None:
            group = self._groups[name]
            del group.rows[id]
            group.until_look -= 1
            if not group.rows:
                del self._groups[name]
        return sequence

    def clear(self) -> list[Sequence]:
        gone = [*self._alone.values(), *self._company.values()]
        for line in (self._alone, self._company, self._groups):
            line.clear()
        return gone

    @property
    def first_alone(self) -> Sequence:
        return next(iter(self._alone.values()))

    def candidates(self, now: float) -> Iterator[Sequence]:
        """Whom to admit next, best first. One that has waited too long is not overtaken."""
        oldest = next(iter(self._company.values()), None)
        if oldest is None:
            return
        if now - oldest.arrived >= self._age_limit:
            yield oldest
            return
        current = self._groups.get(self._current) if self._current is not None else None
        if current is not None:
            yield from islice(current.rows.values(), LOOK_AHEAD)
        for sequence in islice(self._company.values(), LOOK_AHEAD):
            if current is None or sequence.id not in current.rows:
                yield sequence

    def shared(self, group: str | None) -> None:
        """A row of this group was admitted to a prefix: the others of it go on with it."""
        self._current = group

    def look(self, group: str | None) -> list[Tokens]:
        """The oldest prompts of a group, when it is time to look at them; else none."""
        found = self._groups.get(group) if group is not None else None
        if found is None or found.until_look > 0:
            return []
        found.until_look = SAMPLE
        return [row.request.prompt for row in islice(found.rows.values(), SAMPLE)]

    def _lines(self, sequence: Sequence) -> Iterator[OrderedDict[str, Sequence]]:
        if sequence.isolated:
            yield self._alone
            return
        yield self._company
        if sequence.request.group is not None:
            yield self._groups[sequence.request.group].rows


def _restore_order(line: OrderedDict[str, Sequence], front: int) -> None:
    """Those in front may have overtaken some of the others before."""
    numbers = [sequence.number for sequence in islice(line.values(), front + 1)]
    if numbers != sorted(numbers):
        for sequence in sorted(line.values(), key=_number):
            line.move_to_end(sequence.id)


def _number(sequence: Sequence) -> int:
    return sequence.number
