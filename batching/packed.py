"""Who runs next on a packed runner: a step holds a token of every row that decodes, and reads
prompts with what is left of its token budget.

Rows are admitted at any step, when a slot, a region of the arena and budget are there. Pure
bookkeeping: knows no tensor, no model and no clock.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from batching.admission import Admission
from batching.arrivals import Arrivals
from batching.draft import Draft
from batching.limit import Limit
from batching.live import Live, LiveRows
from batching.memory import Memory
from batching.requests import EngineConfig, EngineLane, EngineRequest
from batching.scheduler import Load
from batching.sequence import Sequence
from models.runner import ModelInfo, Purpose, RowStep, StepOutput, StepPlan

BULK, EXPRESS = EngineLane.BULK, EngineLane.EXPRESS

#: Steps of a smaller engine before it tries to grow again: when it fails, every row starts anew.
RECOVER_AFTER = 500
#: Seconds after a chat's end in which bulk's steps are a quarter as long: the next waits for less.
EXPRESS_LINGERS = 60.0
#: A row that runs out of memory by itself with no more tokens than this will not do with less.
LEAST_STEP = 16


class PackedScheduler:
    """Waiting rows of two lanes, and those that run."""

    def __init__(self, config: EngineConfig, info: ModelInfo) -> None:
        self._config = config
        rows = min(config.max_rows, info.max_rows or config.max_rows)
        self._slots = Limit(rows + config.express_rows)
        self._step = Limit(config.step_tokens, LEAST_STEP)
        positions = min(config.kv_tokens, info.kv_tokens) if info.kv_tokens else config.kv_tokens
        self._memory = Memory(positions, config.min_prefix, config.cache_share)
        self._admission = Admission(self._memory, info.context, config.min_prefix)
        self._waiting = {lane: Arrivals(config.age_limit) for lane in EngineLane}
        self._live = LiveRows()
        self._dropped: list[str] = []
        self._arrivals = 0
        self._hold_until = float("-inf")
        self._express_until = float("-inf")
        self._bulk_is_due = False
        self._after_isolated = False
        self._no_room_at = -1  #: nothing was released since then, when bulk found no room
        self._good_steps = 0

    # ---- what waits -----------------------------------------------------------------------

    def add(
        self, request: EngineRequest, now: float, *, branch: int = 0, stream: bool = False
    ) -> Sequence:
        self._arrivals += 1
        lane = EngineLane(request.lane)
        if lane is EXPRESS:
            self._express_until = now + EXPRESS_LINGERS
        # What bulk leaves to express can be had only while nothing else runs.
        too_large = lane is BULK and self._admission.need(request) > self._memory.bulk_part
        alone = request.alone or too_large
        sequence = Sequence(request, lane, self._arrivals, now, alone, branch, stream)
        self._waiting[lane].add(sequence)
        self._no_room_at = -1
        return sequence

    def refusal(self, request: EngineRequest) -> str | None:
        need, size = self._admission.need(request), self._memory.size
        if need <= size:
            return None
        return f"The prompt and its answer need {need} tokens of memory; there are {size}."

    def clear_waiting(self) -> list[Sequence]:
        return [sequence for queue in self._waiting.values() for sequence in queue.clear()]

    def hold(self, until: float) -> None:
        self._hold_until = until

    def next_due(self) -> float | None:
        return self._hold_until if any(map(len, self._waiting.values())) else None

    # ---- one step -------------------------------------------------------------------------

    def schedule(self, now: float) -> StepPlan | None:
        """A step in which express prompts are read has express rows only, so that their first
        token costs what it costs an idle engine; but every second step is bulk's, too."""
        self._memory.settle()
        if self._live.slots(EXPRESS):
            self._express_until = now + EXPRESS_LINGERS
        drop, self._dropped = tuple(self._dropped), []
        step, room = self._step.value, self._step.value - self._live.decoding_rows()
        before = frozenset(self._live.decoding(EXPRESS))
        draft = Draft(self._live, room // 2 if self._bulk_is_due else step - len(before))
        lanes = self._lanes_to_admit(now)
        express_is_placed = self._fill(draft, EXPRESS, lanes, now)
        if draft.chunks and not self._bulk_is_due and self._bulk_has_work():
            self._bulk_is_due = True
            return draft.plan(drop, before)
        self._bulk_is_due = False
        if now < self._express_until:  # what express has just taken comes on top
            room = min(room, draft.tokens + max(room - 3 * step // 4, step // 16))
        draft.budget = max(room, draft.tokens)
        self._fill(draft, BULK, lanes if express_is_placed else set(), now)
        if not len(self._live) and now >= self._hold_until:
            self._admit_isolated(draft)
        return draft.plan(drop, None) if len(self._live) or drop else None

    def update(self, plan: StepPlan, output: StepOutput) -> list[tuple[Sequence, RowStep]]:
        self._good_steps += 1
        if self._good_steps % RECOVER_AFTER == 0:
            self._slots.recover()
            self._step.recover()
        results = []
        for step in output.rows:
            live = self._live.find(step.id)
            if live is None:
                continue  # cancelled before a runner that is a step late could know
            if step.finish is not None:
                self._end(live, keep=True)
            if not live.is_prefix:
                results.append((live.sequence, step))
        return results

    def _bulk_has_work(self) -> bool:
        return self._live.slots(BULK) > 0 or len(self._waiting[BULK]) > 0

    def _lanes_to_admit(self, now: float) -> Set[EngineLane]:
        """In which lanes rows may enter in company. One that must be alone waits for an empty
        engine while none does; between two of them the express lane has its turn."""
        if now < self._hold_until or any(live.sequence.isolated for live in self._first()):
            return set()
        if not any(queue.has_alone for queue in self._waiting.values()):
            return set(EngineLane)
        if self._after_isolated and not len(self._live):
            self._after_isolated = False
            return {EXPRESS}
        return set()

    def _admit_isolated(self, draft: Draft) -> None:
        for lane in (EXPRESS, BULK):
            queue = self._waiting[lane]
            if queue.has_alone and not len(self._live):
                self._after_isolated = self._admission.admit(queue.first_alone, queue, draft)

    def _fill(self, draft: Draft, lane: EngineLane, lanes: Set[EngineLane], now: float) -> bool:
        """Read prompts of a lane within the budget. False: one could not be admitted, though it
        had a slot."""
        for live in self._live.reading(lane):
            draft.read(live)
        while lane in lanes and draft.left > 0 and self._free_slots(lane) > 0:
            if not self._waiting[lane].has_company:
                break
            if not self._admit_one(draft, lane, now):
                return False
        return True

    def _admit_one(self, draft: Draft, lane: EngineLane, now: float) -> bool:
        if lane is BULK and self._no_room_at == self._memory.released:
            return False
        queue, short = self._waiting[lane], True
        for sequence in queue.candidates(now):
            if self._admission.admit(sequence, queue, draft):
                return True
            short = short and self._admission.short
        if lane is BULK and short:
            self._no_room_at = self._memory.released
        return False

    def _free_slots(self, lane: EngineLane) -> int:
        """Bulk leaves the express rows free, unless that is all there is."""
        total = self._slots.value - len(self._live)
        if lane is EXPRESS:
            return min(total, self._config.express_rows - self._live.slots(lane))
        return min(total, self._bulk_slots() - self._live.slots(lane))

    def _bulk_slots(self) -> int:
        return max(1, self._slots.value - self._config.express_rows)

    # ---- what leaves before its time ------------------------------------------------------

    def cancel(self, id: str) -> Sequence | None:
        for queue in self._waiting.values():
            if (sequence := queue.remove(id)) is not None:
                self._no_room_at = -1
                return sequence
        live = self._live.find(id)
        if live is None or live.is_prefix:
            return None
        self._end(live)
        self._dropped.append(id)
        return live.sequence

    def entering(self, plan: StepPlan) -> list[Sequence]:
        """With a prefix the one that it is read for: should it break the process, that one is to
        blame."""
        entering = [self._live.find(row.id) for row in plan.admit]
        return [live.sequence for live in entering if live and not live.sequence.admitted]

    def refuse(self, plan: StepPlan, ids: Set[str]) -> StepPlan | None:
        for id in ids:
            for queue in self._waiting.values():
                queue.remove(id)
        return self._without(plan, [row.id for row in plan.admit if row.id in ids])

    def take_back(self, plan: StepPlan) -> StepPlan | None:
        new = [live for row in plan.admit if (live := self._live.find(row.id)) is not None]
        new = [live for live in new if not live.is_prefix and not live.sequence.admitted]
        rest = self._without(plan, [live.id for live in new])
        self._put_back([live.sequence for live in new])
        return rest

    def fail(self, plan: StepPlan, *, out_of_memory: bool) -> list[Sequence]:
        gone = self._live.clear()
        self._memory.reset()
        self._dropped.clear()
        self._good_steps = 0
        rows = [live.sequence for live in gone if not live.is_prefix]
        # A prefix that failed is the fault of the row that it was read for, which may still wait.
        led = [live.sequence for live in gone if live.is_prefix and self._withdraw(live.sequence)]
        tokens = len(gone) + sum(chunk.tokens - 1 for chunk in plan.chunks)
        if out_of_memory:
            self._slots.halve(len(gone))
            self._step.halve(tokens)
        only_one = len(rows) + len(led) == 1
        if only_one and rows and (not out_of_memory or tokens <= LEAST_STEP):
            return rows
        for sequence in (*rows, *led):
            sequence.restart()
            sequence.alone = sequence.alone or (out_of_memory and only_one)
            sequence.single = sequence.single or not out_of_memory
        self._put_back([*rows, *led])
        return []

    def take_emptied(self) -> list[int]:
        return []

    def _withdraw(self, sequence: Sequence) -> bool:
        return self._waiting[sequence.lane].remove(sequence.id) is not None

    def _without(self, plan: StepPlan, ids: list[str]) -> StepPlan | None:
        """A plan that was not run yet, without some of those that enter with it."""
        for id in ids:
            if (live := self._live.find(id)) is not None:
                self._end(live)
        kept = [
            (row, place)
            for row, place in zip(plan.admit, plan.places, strict=True)
            if row.id not in ids
        ]
        rest = replace(
            plan,
            admit=tuple(row for row, _ in kept),
            places=tuple(place for _, place in kept),
            chunks=tuple(chunk for chunk in plan.chunks if chunk.id not in ids),
        )
        return rest if len(self._live) or rest.drop else None

    def _put_back(self, rows: list[Sequence]) -> None:
        for lane, queue in self._waiting.items():
            queue.put_back([row for row in rows if row.lane is lane])

    def _end(self, live: Live, *, keep: bool = False) -> None:
        """A row leaves. What an express prompt left behind serves the next turn of its chat."""
        self._live.remove(live)
        if live.is_prefix and live.prefix is not None:
            if live.sequence.id not in self._waiting[live.lane]:
                live.prefix.paid = True  # who was to pay for it was cancelled
            self._memory.leave_prefix(live.prefix)
            return
        whole = live.place.prefix is None and live.row.purpose is Purpose.GENERATE
        kept = keep and whole and live.lane is EXPRESS and not live.sequence.isolated
        self._memory.leave(live.place.own, live.prefix, live.row.prompt if kept else ())

    # ---- how much there is ----------------------------------------------------------------

    def find(self, id: str) -> Sequence | None:
        live = self._live.find(id)
        return None if live is None or live.is_prefix else live.sequence

    def rows_in(self, plan: StepPlan) -> int:
        """Those that decode or read; some have just been told to read their last chunk."""
        if plan.decode is not None:
            return len(plan.decode) + len(plan.chunks)
        return len(self._live)

    def load(self) -> Load:
        oldest = {lane: queue.oldest for lane, queue in self._waiting.items()}
        return Load(
            waiting={lane: len(queue) for lane, queue in self._waiting.items()},
            running={lane: self._live.slots(lane) for lane in EngineLane},
            oldest={lane: arrived for lane, arrived in oldest.items() if arrived is not None},
            row_limit=min(self._config.max_rows, self._bulk_slots()),
            kv_tokens=self._memory.size,
            kv_used=self._memory.used,
            kv_cached=self._memory.cached,
        )

    def _first(self) -> list[Live]:
        """The row that runs longest, if any does: one that is isolated has no company."""
        return [live for live in [next(iter(self._live), None)] if live is not None]
