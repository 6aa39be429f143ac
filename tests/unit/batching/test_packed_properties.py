"""Whatever happens to packed rows in whatever order: nothing is lost, run twice or in
another's place, budgets hold, and express does not wait for bulk.

The scripted runner keeps the tokens of its arena, so that a region that is freed too early, a
prefix that is not read yet or a wrong copy shows as a row that sees another's tokens.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batching.packed import PackedScheduler
from batching.requests import EngineConfig, EngineLane, EngineRequest
from batching.sequence import Sequence
from models.runner import SamplingParams, StepPlan
from tests.unit.batching.scripted import ScriptedPacked

BULK, EXPRESS = EngineLane.BULK, EngineLane.EXPRESS
ROOMY = EngineConfig(
    max_rows=4, express_rows=2, step_tokens=24, kv_tokens=20_000, min_prefix=4, age_limit=5
)
CRAMPED = replace(ROOMY, kv_tokens=160)
#: What the prompts of a group begin with.
COMMON = {"g": tuple(range(100, 114)), "h": (*range(100, 106), *range(200, 209)), None: ()}
LABELS = ((1, 2, 3), (1, 2, 4), (5,), (6, 7))


class PackedMachine(RuleBasedStateMachine):
    """A scheduler beside a runner that looks after the rules of its plans."""

    config = ROOMY

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sequences: dict[str, Sequence] = {}  # by row
        self.over: set[str] = set()
        self.requests = 0
        self.pending = False
        self.held_until = 0.0
        self.failed = False
        self.passed_over = 0

    @initialize(late=st.booleans())
    def start(self, late: bool) -> None:
        self.runner = ScriptedPacked(
            late=late,
            kv_tokens=self.config.kv_tokens,
            slots=self.config.max_rows + self.config.express_rows,
            budget=self.config.step_tokens,
        )
        self.scheduler = PackedScheduler(self.config, self.runner.info)

    @rule(
        lane=st.sampled_from(["bulk", "bulk", "express"]),
        group=st.sampled_from(["g", "g", "h", None]),
        length=st.integers(1, 40),
        tokens=st.integers(1, 6),
        n=st.sampled_from([1, 1, 1, 3]),
        scored=st.sampled_from([False, False, True]),
        alone=st.sampled_from([False] * 9 + [True]),
        count=st.integers(1, 6),
        turn=st.integers(0, 3),
    )
    def submit(
        self,
        lane: str,
        group: str | None,
        length: int,
        tokens: int,
        n: int,
        scored: bool,
        alone: bool,
        count: int,
        turn: int,
    ) -> None:
        for _ in range(count):
            id = f"r{self.requests}"
            self.requests += 1
            tail = tuple(range(1_000 * turn, 1_000 * turn + length))
            request = EngineRequest(
                id,
                lane,
                (*COMMON[group], *tail[:-1], 10_000 + self.requests),
                SamplingParams(max_tokens=tokens),
                alone,
                n=1 if scored else n,
                choices=LABELS if scored else (),
                group=group if lane == "bulk" else None,
            )
            if self.scheduler.refusal(request) is None:
                for branch in range(request.n):
                    sequence = self.scheduler.add(request, self.now, branch=branch)
                    self.sequences[sequence.id] = sequence

    @rule(length=st.integers(100, 200))
    def submit_a_large_one(self, length: int) -> None:
        self.submit("bulk", None, length, 4, 1, False, False, 1, 0)

    @rule(seconds=st.sampled_from([0.1, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.1, 2.0]))
    def admission_is_held(self, seconds: float) -> None:
        self.held_until = self.now + seconds
        self.scheduler.hold(self.held_until)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.sequences)))
        found = self.scheduler.cancel(id)
        assert (found is None) == (id in self.over)
        self.over.add(id)

    @rule(fault=st.sampled_from(["none"] * 8 + ["out_of_memory", "error", "refused", "held"]))
    def step(self, fault: str) -> None:
        plan = self.scheduler.schedule(self.now) or (StepPlan() if self.pending else None)
        if plan is None:
            assert not self.runner.live
            return
        self.check_turn(plan)
        self.check_isolation()
        left = self.enter(plan, fault)
        if left is None:
            return
        if fault in ("out_of_memory", "error"):
            self.fail(left, out_of_memory=fault == "out_of_memory")
            return
        output = self.runner.step(left)
        self.pending = output.pending
        for sequence, step in self.scheduler.update(left, output):
            assert sequence.id not in self.over
            assert step.id == sequence.id
            assert step.finish is not None
            self.over.add(sequence.id)
        assert not self.runner.live.keys() & (self.over & set(left.drop))

    def check_turn(self, plan: StepPlan) -> None:
        """Express that has a slot reads something in every second step at least."""
        if self.config is not ROOMY:
            return
        load = self.scheduler.load()
        is_free = load.waiting[EXPRESS] > 0 and load.running[EXPRESS] < self.config.express_rows
        lanes = {self.lane_of(chunk.id) for chunk in plan.chunks}
        excused = self.failed or self.now < self.held_until or self.isolation()
        self.passed_over = 0 if excused or not is_free or EXPRESS in lanes else self.passed_over + 1
        assert self.passed_over <= 1

    def lane_of(self, id: str) -> EngineLane:
        """A prefix has the lane of the row that it is read for."""
        live = self.scheduler._live.find(id)
        assert live is not None
        return live.lane

    def isolation(self) -> bool:
        """Somebody is or has to be alone."""
        return any(s.isolated for id, s in self.sequences.items() if id not in self.over)

    def check_isolation(self) -> None:
        ids = [id for id in self.sequences if self.scheduler.find(id) is not None]
        if any(self.sequences[id].isolated for id in ids):
            assert len(ids) == 1

    def enter(self, plan: StepPlan, fault: str) -> StepPlan | None:
        entering = self.scheduler.entering(plan)
        if fault == "held" and plan.admit:
            return self.scheduler.take_back(plan)
        left: StepPlan | None = plan
        if fault == "refused" and entering:
            refused = {sequence.request.id for sequence in entering[::2]}
            rows = {id for id, s in self.sequences.items() if s.request.id in refused}
            left = self.scheduler.refuse(plan, rows)
            assert left is None or rows.isdisjoint(chunk.id for chunk in left.chunks)
            self.over |= rows
        requests = {sequence.request.id for sequence in entering}
        for sequence in self.sequences.values():
            sequence.admitted = sequence.admitted or sequence.request.id in requests
        return left

    def fail(self, plan: StepPlan, *, out_of_memory: bool) -> None:
        self.failed = True
        self.pending = False
        ran = {id for id in self.sequences if self.scheduler.find(id) is not None}
        self.runner.forget(0)
        given_up = self.scheduler.fail(plan, out_of_memory=out_of_memory)
        assert len(given_up) <= 1
        assert {sequence.id for sequence in given_up} in (set(), ran)
        self.over |= {sequence.id for sequence in given_up}

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "scheduler"):
            load = self.scheduler.load()
            assert load.running[BULK] <= self.config.max_rows
            assert load.running[EXPRESS] <= self.config.express_rows
            assert 0 <= load.kv_used + load.kv_cached <= load.kv_tokens

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "scheduler"):
            running = {id for id in self.sequences if self.scheduler.find(id) is not None}
            waiting = sum(self.scheduler.load().waiting.values())
            assert not running & self.over
            assert len(running) + waiting + len(self.over) == len(self.sequences)

    def teardown(self) -> None:
        """Left to itself the scheduler brings everything to its end, and keeps no room."""
        if not hasattr(self, "scheduler"):
            return
        steps = 0
        while len(self.over) < len(self.sequences) or self.runner.live or self.pending:
            self.now += 1.0
            self.step(fault="none")
            steps += 1
            assert steps < 40 * len(self.sequences) + 40
        assert self.scheduler.schedule(self.now) is None
        assert self.scheduler.load().kv_used == 0


class CrampedMachine(PackedMachine):
    config = CRAMPED


TestRoomy = PackedMachine.TestCase
TestRoomy.settings = settings(max_examples=150, stateful_step_count=40)
TestCramped = CrampedMachine.TestCase
TestCramped.settings = settings(max_examples=150, stateful_step_count=40)
