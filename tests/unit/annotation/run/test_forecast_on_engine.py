"""The forecast on what the engine really does with the fake model, whose speed drifts."""

from __future__ import annotations

import math
import random
import threading
from bisect import bisect_right

from batching.engine import Engine
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from models.fake import FakeRunner
from models.runner import SamplingParams, StepOutput, StepPlan
from penstock.annotation.run.forecast import Forecast

ROWS = 400
LOOKS = 100
TRIALS = 20
STAGES = (0.25, 0.5, 0.75)


class DriftingRunner(FakeRunner):
    """Its clock is its own: a step takes as long as its tokens and a load that walks at random."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.now = 0.0
        self._chance = chance
        self._load = 0.0

    def step(self, plan: StepPlan) -> StepOutput:
        output = super().step(plan)
        self._load += self._chance.gauss(0, 0.05)
        self.now += math.exp(self._load) * (0.01 + 0.0005 * output.tokens_read)
        return output


def ends(chance: random.Random) -> list[float]:
    """When each of the rows ended, on the runner's clock."""
    runner = DriftingRunner(chance)
    engine = Engine(runner, EngineConfig(max_rows=16), clock=lambda: runner.now)
    found: list[float] = []
    over = threading.Event()

    def on_done(outcome: EngineOutcome) -> None:
        found.append(runner.now)
        if len(found) == ROWS:
            over.set()

    for number in range(ROWS):
        text = "word " * chance.randint(1, 12)
        prompt = runner.codec.encode_text(text)
        engine.submit(EngineRequest(str(number), "bulk", prompt, SamplingParams()), on_done)
    engine.start()
    try:
        assert over.wait(60)
    finally:
        engine.stop()
    return found


def test_the_end_lies_in_the_interval_in_70_of_100_trials_on_the_fake_model() -> None:
    chance = random.Random(4)
    held: list[bool] = []
    for _ in range(TRIALS):
        times = ends(chance)
        forecast, stages = Forecast(), list(STAGES)
        for look in range(LOOKS):
            at = times[-1] * look / LOOKS
            done = bisect_right(times, at)
            forecast.add(at, done)
            if stages and done >= stages[0] * ROWS:
                stages.pop(0)
                left = forecast.left(at, ROWS)
                assert left is not None
                held.append(left.low <= times[-1] - at <= left.high)

    assert len(held) == TRIALS * len(STAGES)
    assert sum(held) >= 0.7 * len(held), sum(held) / len(held)
