"""Who runs next on a padded runner: rows are prefilled together and step together, in micro-batches
of like lengths. Pure bookkeeping: knows no tensor, no model and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field, replace

from batching.limit import Limit
from batching.requests import EngineConfig, EngineLane, EngineRequest
from batching.scheduler import Load
from batching.sequence import Sequence
from batching.waiting import WaitingQueue
from models.runner import RowStep, StepOutput, StepPlan

#: A new bulk micro-batch is formed beside a live one when this share of the rows is free. Each
#: costs a step of its own for each of its tokens, so many thin ones are slow: simulated, half
#: brings 15 % less throughput and later answers; waiting for the very last row brings less too.
FREE_SHARE = 7 / 8


@dataclass(slots=True)
class MicroBatch:
    """Rows that were prefilled together and step together."""

    number: int
    lane: EngineLane
    alone: bool
    rows: dict[str, Sequence]
    dropped: list[str] = field(default_factory=list)  #: cancelled since the last step


class PaddedScheduler:
    """Waiting prompts of two lanes, and the live micro-batches."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self.limit = Limit(config.max_rows)
        self._waiting = {lane: WaitingQueue() for lane in EngineLane}
        self._live: dict[int, MicroBatch] = {}
        self._turns: dict[EngineLane, deque[int]] = {lane: deque() for lane in EngineLane}
        self._running = dict.fromkeys(EngineLane, 0)
        self._home: dict[str, MicroBatch] = {}
        self._emptied: list[int] = []
        self._arrivals = 0
        self._micro_batches = 0
        self._express_streak = 0  #: express steps since the last bulk step
        self._hold_until = float("-inf")

    # ---- what waits -----------------------------------------------------------------------

    def add(
        self, request: EngineRequest, now: float, *, branch: int = 0, stream: bool = False
    ) -> Sequence:
        self._arrivals += 1
        lane = EngineLane(request.lane)
        sequence = Sequence(request, lane, self._arrivals, now, request.alone, branch, stream)
        self._waiting[lane].add(sequence)
        return sequence

    def refusal(self, request: EngineRequest) -> None:
        """Only the device knows what fits."""

    def clear_waiting(self) -> list[Sequence]:
        return [sequence for queue in self._waiting.values() for sequence in queue.clear()]

    def hold(self, until: float) -> None:
        self._hold_until = until

    def next_due(self) -> float | None:
        bulk = self._waiting[EngineLane.BULK]
        if self._waiting[EngineLane.EXPRESS] or bulk.has_single or bulk.has_alone:
            return self._hold_until
        if bulk.oldest is None:
            return None
        return max(bulk.oldest.arrived + self._config.max_wait, self._hold_until)

    # ---- one step -------------------------------------------------------------------------

    def schedule(self, now: float) -> StepPlan | None:
        """The next step, or None when nothing can run now. Express goes first, but once each live
        express micro-batch has stepped it is bulk's turn for one step."""
        bulk_is_due = 0 < self._express_streak >= len(self._turns[EngineLane.EXPRESS])
        lanes = (EngineLane.EXPRESS, EngineLane.BULK)
        for lane in reversed(lanes) if bulk_is_due else lanes:
            plan = self._admit(lane, now) or self._continue(lane)
            if plan is not None:
                return plan
        return None

    def update(self, plan: StepPlan, output: StepOutput) -> list[tuple[Sequence, RowStep]]:
        """Raises RuntimeError when the runner answered for rows that did not run."""
        batch = self._live[plan.micro_batch]
        self._count_step(batch.lane)
        if not {step.id for step in output.rows} <= batch.rows.keys():
            raise RuntimeError("the runner answered for other rows than were asked")
        results = [(batch.rows[step.id], step) for step in output.rows]
        for sequence, step in results:
            if step.finish is not None:
                self._leave(batch, sequence)
        if not batch.rows:
            self._close(batch)
            self.limit.recover()
        return results

    def _admit(self, lane: EngineLane, now: float) -> StepPlan | None:
        """Form a new micro-batch, if there is room and a reason to do it now."""
        if now < self._hold_until or any(batch.alone for batch in self._live.values()):
            return None
        queue = self._waiting[lane]
        if any(line.has_alone for line in self._waiting.values()):
            # Nothing is admitted while one waits for an empty engine.
            runs_now = queue.has_alone and not self._live
            return self._form(lane, queue.take_alone(), alone=True) if runs_now else None
        room = self._room(lane)
        if room < 1 or not queue:
            return None
        if queue.has_single:
            return self._form(lane, queue.take_single())
        oldest = queue.oldest
        age = now - oldest.arrived if oldest else 0.0
        bulk = lane is EngineLane.BULK
        rows = queue.take(
            room,
            self._config.max_batch_tokens,
            around_oldest=not bulk or age >= self._config.age_limit,
            only_full=bulk and age < self._config.max_wait,
        )
        return self._form(lane, rows) if rows else None

    def _room(self, lane: EngineLane) -> int:
        """Rows that a new micro-batch of this lane may have."""
        limit = self.limit.value
        total = limit + self._config.express_rows - sum(self._running.values())
        if lane is EngineLane.EXPRESS:
            # The rows kept for it come on top of bulk's; what the device can hold binds it, too.
            return min(total, limit)
        free = limit - self._running[lane]
        worth_it = free >= FREE_SHARE * limit
        return min(free, total) if worth_it or not self._running[lane] else 0

    def _form(self, lane: EngineLane, rows: list[Sequence], *, alone: bool = False) -> StepPlan:
        self._micro_batches += 1
        batch = MicroBatch(self._micro_batches, lane, alone, {row.id: row for row in rows})
        self._live[batch.number] = batch
        self._turns[lane].append(batch.number)
        self._running[lane] += len(rows)
        self._home.update(dict.fromkeys(batch.rows, batch))
        return StepPlan(micro_batch=batch.number, admit=tuple(row.row() for row in rows))

    def _continue(self, lane: EngineLane) -> StepPlan | None:
        """A decode step of the lane's micro-batch whose turn it is."""
        turns = self._turns[lane]
        if not turns:
            return None
        batch = self._live[turns[0]]
        turns.rotate(-1)
        drop = tuple(batch.dropped)
        batch.dropped.clear()
        return StepPlan(micro_batch=batch.number, drop=drop)

    # ---- what leaves before its time ------------------------------------------------------

    def cancel(self, id: str) -> Sequence | None:
        """A row that runs is dropped at its micro-batch's next step."""
        batch = self._home.get(id)
        if batch is None:
            found = (queue.remove(id) for queue in self._waiting.values())
            return next((sequence for sequence in found if sequence is not None), None)
        sequence = batch.rows[id]
        self._leave(batch, sequence)
        batch.dropped.append(id)
        if not batch.rows:
            self._close(batch)
            self._emptied.append(batch.number)
        return sequence

    def take_emptied(self) -> list[int]:
        emptied, self._emptied = self._emptied, []
        return emptied

    def entering(self, plan: StepPlan) -> list[Sequence]:
        rows = self._live[plan.micro_batch].rows.values() if plan.admit else ()
        return [sequence for sequence in rows if not sequence.admitted]

    def refuse(self, plan: StepPlan, ids: Set[str]) -> StepPlan | None:
        batch = self._live[plan.micro_batch]
        for id in ids:
            if id in batch.rows:
                self._leave(batch, batch.rows[id])
            else:
                self.cancel(id)
        if not batch.rows:
            self._close(batch)
            return None
        return replace(plan, admit=tuple(row for row in plan.admit if row.id in batch.rows))

    def take_back(self, plan: StepPlan) -> None:
        self._put_back(self._dissolve(plan.micro_batch))

    def fail(self, plan: StepPlan, *, out_of_memory: bool) -> list[Sequence]:
        """Only the micro-batch of the step is concerned."""
        number = plan.micro_batch
        self._count_step(self._live[number].lane)
        rows = self._dissolve(number)
        if out_of_memory:
            self.limit.halve(len(rows))
        if len(rows) == 1 and not (out_of_memory and self._live):
            return rows
        for row in rows:
            row.restart()
            row.alone = row.alone or (out_of_memory and len(rows) == 1)
            row.single = row.single or not out_of_memory
        self._put_back(rows)
        return []

    def _count_step(self, lane: EngineLane) -> None:
        """Only steps that were run count: a prefill may be refused or postponed."""
        express = lane is EngineLane.EXPRESS
        self._express_streak = self._express_streak + 1 if express else 0

    def _put_back(self, rows: list[Sequence]) -> None:
        """To the front of their queues, in their order of arrival."""
        for row in sorted(rows, key=lambda row: row.number, reverse=True):
            self._waiting[row.lane].put_back(row)

    def _dissolve(self, number: int) -> list[Sequence]:
        batch = self._live[number]
        rows = list(batch.rows.values())
        for row in rows:
            self._leave(batch, row)
        self._close(batch)
        return rows

    def _leave(self, batch: MicroBatch, sequence: Sequence) -> None:
        del batch.rows[sequence.id]
        del self._home[sequence.id]
        self._running[batch.lane] -= 1

    def _close(self, batch: MicroBatch) -> None:
        del self._live[batch.number]
        self._turns[batch.lane].remove(batch.number)

    # ---- how much there is ----------------------------------------------------------------

    def find(self, id: str) -> Sequence | None:
        batch = self._home.get(id)
        return None if batch is None else batch.rows[id]

    def rows_in(self, plan: StepPlan) -> int:
        return len(self._live[plan.micro_batch].rows)

    def load(self) -> Load:
        oldest = {lane: queue.oldest_arrival for lane, queue in self._waiting.items()}
        return Load(
            waiting={lane: len(queue) for lane, queue in self._waiting.items()},
            running=dict(self._running),
            oldest={lane: arrived for lane, arrived in oldest.items() if arrived is not None},
            row_limit=self.limit.value,
            micro_batches=len(self._live),
        )
