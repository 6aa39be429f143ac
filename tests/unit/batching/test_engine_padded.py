"""The engine on a real model: company, cancels and failures change nobody's answer."""

from __future__ import annotations

import threading

from batching.engine import Engine
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from models.runner import FinishReason, StepOutput, StepPlan
from penstock.errors import OutOfMemory
from tests.unit.models.tiny import alone, greedy, model, prompts, runner


def test_answers_are_those_of_each_prompt_alone_whatever_happens_around_it() -> None:
    made = model("llama")
    real = runner(made)

    class Cramped:
        """Too little memory for many rows, and one prompt that it cannot bear."""

        info, codec, forget = real.info, real.codec, real.forget

        def step(self, plan: StepPlan) -> StepOutput:
            if len(plan.admit) > 6:
                raise OutOfMemory
            if any(row.id == "r13" for row in plan.admit):
                raise ZeroDivisionError
            return real.step(plan)

    rows = [
        greedy(f"r{number}", prompt, 4 + number % 13) for number, prompt in enumerate(prompts(40))
    ]
    outcomes: dict[str, EngineOutcome] = {}
    streamed: dict[str, str] = {row.id: "" for row in rows}
    done = threading.Event()

    def keep(outcome: EngineOutcome) -> None:
        assert outcome.id not in outcomes
        outcomes[outcome.id] = outcome
        if len(outcomes) == len(rows):
            done.set()

    config = EngineConfig(max_rows=12, max_batch_tokens=300, max_wait=0.01, express_rows=3)
    engine = Engine(Cramped(), config)
    for number, row in enumerate(rows):

        def show(text: str, id: str = row.id) -> None:
            streamed[id] += text

        lane = "express" if number % 5 == 0 else "bulk"
        engine.submit(EngineRequest(row.id, lane, row.prompt, row.sampling), keep, show)
    engine.cancel("r7")
    engine.start()
    try:
        assert done.wait(60)
    finally:
        engine.stop()
    assert outcomes.pop("r7").finish is FinishReason.CANCELLED
    assert outcomes.pop("r13").finish is FinishReason.ERROR
    expected = {row.id: alone(made, row) for row in rows}
    for id, outcome in outcomes.items():
        assert outcome.text == streamed[id] == expected[id]
