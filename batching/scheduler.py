"""What the engine asks of a scheduler. Two stand behind it: `packed.py`, where every row of the
engine is in each step, and `padded.py`, where rows run in micro-batches.

A scheduler knows no tensor, no model and no clock: `now` is passed in, in seconds of any monotonic
clock. All calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Protocol

from batching.requests import EngineLane, EngineRequest
from batching.sequence import Sequence
from models.runner import RowStep, StepOutput, StepPlan


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is to do, and what is taken. By lane: rows, and when the oldest arrived."""

    waiting: dict[EngineLane, int]
    running: dict[EngineLane, int]
    oldest: dict[EngineLane, float] = field(default_factory=dict)
    row_limit: int = 0
    micro_batches: int = 0
    kv_tokens: int = 0
    kv_used: int = 0
    kv_cached: int = 0


class Scheduler(Protocol):
    """Waiting rows, and those that run."""

    def add(
        self, request: EngineRequest, now: float, *, branch: int = 0, stream: bool = False
    ) -> Sequence:
        """Queue one answer to a prompt."""
        ...

    def refusal(self, request: EngineRequest) -> str | None:
        """Why a request could never run for lack of memory. None: it could."""
        ...

    def schedule(self, now: float) -> StepPlan | None:
        """The next step, or None when nothing can run now."""
        ...

    def entering(self, plan: StepPlan) -> list[Sequence]:
        """Those for whom a step does something the first time."""
        ...

    def refuse(self, plan: StepPlan, ids: Set[str]) -> StepPlan | None:
        """Take rows out before a plan is run, wherever they are. Returns what is left of it."""
        ...

    def take_back(self, plan: StepPlan) -> StepPlan | None:
        """Requeue those that enter with a plan: it is not run with them. Returns what is left."""
        ...

    def rows_in(self, plan: StepPlan) -> int:
        """Rows that a plan just made gives something to do."""
        ...

    def find(self, id: str) -> Sequence | None:
        """One that runs."""
        ...

    def update(self, plan: StepPlan, output: StepOutput) -> list[tuple[Sequence, RowStep]]:
        """Book what a step brought: rows that ended leave."""
        ...

    def fail(self, plan: StepPlan, *, out_of_memory: bool) -> list[Sequence]:
        """A step failed and the runner has forgotten its rows. They run again from the start, in
        smaller company; returns the one that failed with nobody else to blame."""
        ...

    def cancel(self, id: str) -> Sequence | None:
        """Take a row out, wherever it is. None: not here, or over already."""
        ...

    def clear_waiting(self) -> list[Sequence]:
        """Take out all that wait."""
        ...

    def hold(self, until: float) -> None:
        """Admit nothing before `until`; what runs goes on."""
        ...

    def next_due(self) -> float | None:
        """When waiting rows are due by time alone; None: only an event can change anything."""
        ...

    def take_emptied(self) -> list[int]:
        """Micro-batches that lost their last row by `cancel`: the runner must forget them."""
        ...

    def load(self) -> Load: ...
