"""A process that is stuck or broken is ended, and one that is idle is not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from batching.engine import MAX_FAILURES_IN_A_ROW, Engine
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from models.fake import FakeRunner
from models.runner import SamplingParams, StepOutput, StepPlan
from workers.watchdog import EXIT_STUCK, Watchdog

Exits = queue.SimpleQueue[int]
Watch = Callable[[Engine, Callable[[], bool]], Exits]


class HangingRunner(FakeRunner):
    """Makes no step until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def step(self, plan: StepPlan) -> StepOutput:
        self.let_go.wait(30)
        return super().step(plan)


class BrokenRunner(FakeRunner):
    """A device in a state in which every step fails."""

    def step(self, plan: StepPlan) -> StepOutput:
        raise RuntimeError("device-side assert triggered")


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Starts an engine and its watchdog; what the watchdog would exit with comes by the queue."""
    ends: list[Callable[[], object]] = []

    def start(engine: Engine, thread_alive: Callable[[], bool]) -> Exits:
        exits: Exits = queue.SimpleQueue()
        dog = Watchdog(
            engine=engine,
            limit=0.2,
            threads=[thread_alive],
            fence=lambda: None,
            exit_process=exits.put,
        )
        engine.start()
        dog.start()
        ends.extend([dog.stop, engine.stop])
        return exits

    yield start
    for end in ends:
        end()


def submit(engine: Engine, count: int) -> None:
    def ignore(outcome: EngineOutcome) -> None:
        """Only the watchdog is asked here."""

    for number in range(count):
        engine.submit(
            EngineRequest(str(number), "express", (1, 2), SamplingParams(max_tokens=2)), ignore
        )


def test_an_engine_that_makes_no_step_ends_the_process(watch: Watch) -> None:
    runner = HangingRunner()
    engine = Engine(runner, EngineConfig())
    exits = watch(engine, lambda: True)
    submit(engine, 1)
    assert exits.get(timeout=10) == EXIT_STUCK
    runner.let_go.set()


def test_an_engine_that_fails_everything_ends_the_process(watch: Watch) -> None:
    engine = Engine(BrokenRunner(), EngineConfig())
    exits = watch(engine, lambda: True)
    submit(engine, MAX_FAILURES_IN_A_ROW)
    assert exits.get(timeout=10) == EXIT_STUCK


def test_a_thread_that_died_ends_the_process(watch: Watch) -> None:
    exits = watch(Engine(FakeRunner(), EngineConfig()), lambda: False)
    assert exits.get(timeout=10) == EXIT_STUCK


def test_an_idle_engine_is_left_alone(watch: Watch) -> None:
    exits = watch(Engine(FakeRunner(), EngineConfig()), lambda: True)
    with pytest.raises(queue.Empty):
        exits.get(timeout=2.5)
