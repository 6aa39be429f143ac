"""Whatever happens to micro-batches in whatever order: nothing is lost, run twice or starved."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batching.padded import PaddedScheduler
from batching.requests import EngineConfig, EngineLane, EngineRequest
from models.runner import FinishReason, RowStep, SamplingParams, StepOutput, StepPlan

CONFIG = EngineConfig(max_rows=5, max_batch_tokens=40, max_wait=0.5, express_rows=2, age_limit=5)


class PaddedMachine(RuleBasedStateMachine):
    """A scheduler beside the simplest model of what a runner holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = PaddedScheduler(CONFIG)
        self.now = 0.0
        self.requests: dict[str, EngineRequest] = {}
        self.left: dict[str, int] = {}  # steps that a row still needs
        self.over: set[str] = set()
        self.live: dict[int, set[str]] = {}  # what the runner holds
        self.to_drop: set[str] = set()
        self.express_passed_over = 0
        self.held_until = 0.0
        self.isolated: set[str] = set()  # ran out of memory as the only row of its micro-batch

    @rule(
        lane=st.sampled_from(["bulk", "bulk", "express"]),
        length=st.integers(1, 60),
        steps=st.integers(1, 4),
        alone=st.sampled_from([False] * 9 + [True]),
        count=st.integers(1, 6),
    )
    def submit(self, lane: str, length: int, steps: int, alone: bool, count: int) -> None:
        for _ in range(count):
            id = f"r{len(self.requests)}"
            request = EngineRequest(id, lane, (1,) * length, SamplingParams(), alone)
            self.requests[id] = request
            self.left[id] = steps
            self.scheduler.add(request, self.now)

    @rule(seconds=st.sampled_from([0.1, 0.6, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.1, 2.0]))
    def admission_is_held(self, seconds: float) -> None:
        self.held_until = self.now + seconds
        self.scheduler.hold(self.held_until)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.requests)))
        found = self.scheduler.cancel(id)
        assert (found is None) == (id in self.over)
        self.over.add(id)
        if found is not None and any(id in rows for rows in self.live.values()):
            self.to_drop.add(id)
        for number in self.scheduler.take_emptied():
            assert self.live.pop(number) <= self.to_drop | self.over

    @rule(fault=st.sampled_from(["none"] * 6 + ["out_of_memory", "error", "refused", "held"]))
    def step(self, fault: str) -> None:
        express_can_run = self.express_can_run()
        plan = self.scheduler.schedule(self.now)
        if plan is None:
            assert not self.live
            return
        if plan.admit:
            self.check_admission(plan)
            if fault == "held":
                self.scheduler.take_back(plan)
                return
            if fault == "refused":
                left = self.refuse(plan)
                if left is None:
                    return
                plan = left
            self.live[plan.micro_batch] = {row.id for row in plan.admit}
        self.check_turn(plan, express_can_run)
        self.check_drops(plan)
        if fault in ("out_of_memory", "error"):
            self.fail(plan, out_of_memory=fault == "out_of_memory")
        else:
            self.succeed(plan)

    def express_can_run(self) -> bool:
        """An express row runs, or waits and there is room for it."""
        running = [id for rows in self.live.values() for id in rows - self.over]
        if any(self.requests[id].lane == "express" for id in running):
            return True
        is_open = [request for id, request in self.requests.items() if id not in self.over]
        if self.now < self.held_until or self.isolated - self.over or any(r.alone for r in is_open):
            return False
        room = self.scheduler.limit.value + CONFIG.express_rows - len(running)
        return self.scheduler.load().waiting[EngineLane.EXPRESS] > 0 and room > 0

    def check_turn(self, plan: StepPlan, express_can_run: bool) -> None:
        lanes = {self.requests[id].lane for id in self.live[plan.micro_batch]}
        assert len(lanes) == 1
        if lanes == {"bulk"} and express_can_run:
            self.express_passed_over += 1
        else:
            self.express_passed_over = 0
        assert self.express_passed_over <= 1

    def check_admission(self, plan: StepPlan) -> None:
        lengths = [len(row.prompt) for row in plan.admit]
        assert len(lengths) == 1 or len(lengths) * max(lengths) <= CONFIG.max_batch_tokens
        running = {id for rows in self.live.values() for id in rows}
        for row in plan.admit:
            assert row.id not in self.over
            assert row.id not in running
        if any(self.requests[row.id].alone for row in plan.admit):
            assert not self.live
            assert len(plan.admit) == 1

    def check_drops(self, plan: StepPlan) -> None:
        """All that was cancelled is dropped now, not later."""
        rows = self.live[plan.micro_batch]
        assert set(plan.drop) == rows & self.to_drop
        self.to_drop -= rows
        rows -= set(plan.drop)

    def refuse(self, plan: StepPlan) -> StepPlan | None:
        refused = {row.id for row in plan.admit[::2]}
        left = self.scheduler.refuse(plan, refused)
        assert left is None or refused.isdisjoint(row.id for row in left.admit)
        self.over |= refused
        return left

    def fail(self, plan: StepPlan, *, out_of_memory: bool) -> None:
        rows = self.live.pop(plan.micro_batch)
        given_up = self.scheduler.fail(plan, out_of_memory=out_of_memory)
        assert {sequence.id for sequence in given_up} in (set(), rows)
        assert not given_up or len(rows) == 1
        self.over |= {sequence.id for sequence in given_up}
        if out_of_memory and len(rows) == 1:
            self.isolated |= rows

    def succeed(self, plan: StepPlan) -> None:
        rows = self.live[plan.micro_batch]
        steps = []
        for id in rows:
            self.left[id] -= 1
            if self.left[id] <= 0:
                steps.append(RowStep(id, "x", FinishReason.STOP))
        results = self.scheduler.update(plan, StepOutput(tuple(steps)))
        ended = {step.id for step in steps}
        assert {sequence.id for sequence, _ in results} == ended
        assert not ended & self.over
        self.over |= ended
        rows -= ended
        if not rows:
            del self.live[plan.micro_batch]

    @invariant()
    def limits_hold(self) -> None:
        running = self.scheduler.load().running
        assert running[EngineLane.BULK] <= CONFIG.max_rows
        assert sum(running.values()) <= CONFIG.max_rows + CONFIG.express_rows
        held = [id for rows in self.live.values() for id in rows if id not in self.to_drop]
        assert sum(running.values()) == len(held)
        if any(self.requests[id].alone for id in held):
            assert len(held) == 1

    @invariant()
    def nothing_is_lost(self) -> None:
        load = self.scheduler.load()
        here = sum(load.waiting.values()) + sum(load.running.values())
        assert here + len(self.over) == len(self.requests)

    def teardown(self) -> None:
        """Left to itself the scheduler brings everything to its end."""
        steps = 0
        while len(self.over) < len(self.requests):
            self.now += 1.0
            self.step(fault="none")
            steps += 1
            assert steps < 20 * len(self.requests) + 20


TestPaddedScheduler = PaddedMachine.TestCase
TestPaddedScheduler.settings = settings(max_examples=150, stateful_step_count=40)
