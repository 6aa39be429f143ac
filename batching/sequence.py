"""One answer's way through the engine: the only mutable thing about it. Knows no scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from batching.requests import EngineLane, EngineRequest
from models.runner import Purpose, Row, RowStep


@dataclass(slots=True, eq=False)
class Sequence:
    """One of a request's answers with what has happened to it. `number` orders arrivals."""

    request: EngineRequest
    lane: EngineLane
    number: int
    arrived: float
    alone: bool  #: runs with nothing else in the engine
    branch: int = 0
    stream: bool = False
    single: bool = False  #: runs by itself, because it failed among others
    admitted: bool = False  #: the admission is durable; a second run needs no second one
    cached: int = 0  #: tokens of the prompt that it did not have to read
    started: float | None = None  #: when its first token came, in its first run
    last: RowStep | None = None  #: the one that ended it
    pieces: list[str] = field(default_factory=list)
    length: int = 0  #: characters in `pieces`
    shown: int = 0  #: characters that were given to `on_token`, in this run or an earlier one

    @property
    def id(self) -> str:
        return f"{self.request.id}#{self.branch}" if self.branch else self.request.id

    @property
    def isolated(self) -> bool:
        return self.alone or self.single

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def row(self) -> Row:
        request = self.request
        return Row(
            id=self.id,
            prompt=request.prompt,
            sampling=request.sampling,
            purpose=Purpose.SCORE if request.choices else Purpose.GENERATE,
            choices=request.choices,
            stream=self.stream,
            branch=self.branch,
        )

    def append(self, step: RowStep) -> str:
        """Take one step's news. Returns the part of its text that was not shown yet."""
        if step.finish is not None:
            self.last = step
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
        self.cached = 0
