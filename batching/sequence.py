"""One request's way through the engine: the only mutable thing about it. Knows no scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from batching.requests import EngineLane, EngineRequest
from models.runner import Row, RowStep


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with what has happened to it. `number` orders arrivals."""

    request: EngineRequest
    lane: EngineLane
    number: int
    arrived: float
    alone: bool  #: runs with nothing else in the engine
    single: bool = False  #: runs as a micro-batch of its own, because it failed among others
    admitted: bool = False  #: the admission is durable; a second run needs no second one
    ttft: float | None = None
    tokens: int = 0
    pieces: list[str] = field(default_factory=list)
    length: int = 0  #: characters in `pieces`
    shown: int = 0  #: characters that were given to `on_token`, in this run or an earlier one

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def row(self) -> Row:
        return Row(self.request.id, self.request.prompt, self.request.sampling)

    def append(self, step: RowStep, now: float) -> str:
        """Take one step's text. Returns the part that was not shown yet."""
        self.tokens += 1
        if self.ttft is None:
            self.ttft = now - self.arrived
        if not step.text:
            return ""
        self.pieces.append(step.text)
        start = self.length
        self.length += len(step.text)
        if self.length <= self.shown:
            return ""
        fresh = step.text[max(0, self.shown - start) :]
        self.shown = self.length
        return fresh

    def restart(self) -> None:
        """Back to the start of the prompt; what was shown is not shown again."""
        self.pieces.clear()
        self.length = 0
        self.tokens = 0
