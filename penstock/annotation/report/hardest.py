"""The rows that a person should see first, in a heap of bounded size. Knows no picture."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.annotation.report.cells import text
from penstock.annotation.report.layout import Layout, Line

MOST = 20


@dataclass(frozen=True, slots=True)
class Example:
    """A row as it is shown; its cells are cut."""

    place: str
    cells: Mapping[str, str]
    answer: str
    probability: float | None
    agreement: float | None
    gold: str
    right: bool | None
    votes: Mapping[str, str]


class Hardest:
    """The `MOST` rows of the highest keys; of equal ones, those that come first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Example]] = []

    def add(self, key: float, line: Line, layout: Layout) -> None:
        if len(self._heap) == MOST and (key, -line.number) <= self._heap[0][:2]:
            return
        entry = (key, -line.number, _example(line, layout))
        if len(self._heap) < MOST:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def examples(self) -> tuple[Example, ...]:
        return tuple(example for _, _, example in sorted(self._heap, key=lambda e: e[:2])[::-1])


def doubt(line: Line) -> float | None:
    """How little sure the row's answer is, from 0 to 1; None where nothing says so."""
    known = [value for value in (line.probability, line.agreement) if value is not None]
    if known:
        return 1 - min(known)
    return 1.0 if line.review and line.done else None


def _example(line: Line, layout: Layout) -> Example:
    row = line.row
    return Example(
        place=line.place,
        cells={name: text(row.get(name)) for name in layout.shown},
        answer=layout.answer(row),
        probability=line.probability,
        agreement=line.agreement,
        gold="" if layout.gold is None else text(row.get(layout.gold)),
        right=line.right,
        votes={voter: text(row.get(column), 200) for voter, column in layout.votes.items()},
    )
