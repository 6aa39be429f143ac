"""A runner whose rows answer `0 1 2 …`, one number a step, and that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable

from models.fake import FakeCodec
from models.runner import FinishReason, ModelInfo, Row, RowStep, StepOutput, StepPlan


class ScriptedRunner:
    """Rows end after `max_tokens` steps. `fault` sees each plan with the ids that it runs, and may
    raise; `gate` holds every step while it is closed."""

    def __init__(self, fault: Callable[[StepPlan, list[str]], None] | None = None) -> None:
        self.info = ModelInfo("scripted", 0, 0, "none", "none", 1_000, "scripted")
        self.codec = FakeCodec()
        self.plans: list[StepPlan] = []
        self.ran: list[list[str]] = []
        self.forgotten: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._fault = fault
        self._live: dict[int, dict[str, tuple[int, Row]]] = {}

    def step(self, plan: StepPlan) -> StepOutput:
        self.entered.set()
        assert self.gate.wait(30)
        self.plans.append(plan)
        if plan.admit:
            self._live[plan.micro_batch] = {row.id: (0, row) for row in plan.admit}
        live = self._live[plan.micro_batch]
        for id in plan.drop:
            del live[id]
        self.ran.append(list(live))
        if self._fault is not None:
            self._fault(plan, list(live))
        steps = []
        for id, (given, row) in list(live.items()):
            last = given + 1 == row.sampling.max_tokens
            steps.append(RowStep(id, f"{given} ", FinishReason.LENGTH if last else None))
            live[id] = (given + 1, row)
            if last:
                del live[id]
        return StepOutput(tuple(steps), len(steps), len(steps))

    def forget(self, micro_batch: int) -> None:
        self.forgotten.append(micro_batch)
        self._live.pop(micro_batch, None)

    def answer(self, tokens: int) -> str:
        return "".join(f"{number} " for number in range(tokens))
