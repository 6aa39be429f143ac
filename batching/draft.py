"""The packed step that is being put together. Knows no queue and no memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from batching.live import Live, LiveRows
from models.runner import Chunk, Place, Row, StepPlan


@dataclass(slots=True, eq=False)
class Draft:
    """What enters and what is read, and how many `tokens` that takes of the `budget`."""

    live: LiveRows
    budget: int
    tokens: int = 0
    admit: list[Row] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.budget - self.tokens

    def enter(self, live: Live) -> None:
        """A row comes in, and begins to read if there is budget."""
        self.live.add(live)
        self.admit.append(live.row)
        self.places.append(live.place)
        self.read(live)

    def read(self, live: Live) -> None:
        """As much of a row's prompt as is left in the budget."""
        tokens = live.chunk(self.left, first=not self.chunks)
        if not tokens:
            return
        self.chunks.append(Chunk(live.id, tokens))
        self.live.read(live, tokens)
        self.tokens += tokens + (0 if live.unread else live.nodes)

    def plan(self, drop: tuple[str, ...], decode: frozenset[str] | None) -> StepPlan:
        return StepPlan(
            admit=tuple(self.admit),
            places=tuple(self.places),
            chunks=tuple(self.chunks),
            drop=drop,
            decode=decode,
        )
