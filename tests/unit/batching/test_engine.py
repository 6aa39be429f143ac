"""The engine's loop on a scripted runner and on the fake one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager

import pytest

from batching.engine import MAX_FAILURES_IN_A_ROW, Engine, admit_all
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from models.fake import FakeRunner
from models.runner import FinishReason, Runner, SamplingParams, StepPlan
from penstock.errors import InvalidRequest, OutOfMemory, PromptError, Unavailable
from tests.unit.batching.scripted import ScriptedRunner

CONFIG = EngineConfig(max_rows=8, max_batch_tokens=1_000, max_wait=0.01, express_rows=2)


class Client:
    """Submits, and keeps what comes back."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outcomes: dict[str, EngineOutcome] = {}
        self.streamed: dict[str, str] = {}
        self.repeated: list[str] = []
        self._submitted = 0
        self._changed = threading.Condition()

    def submit(
        self, id: str, lane: str = "bulk", *, tokens: int = 3, length: int = 5, alone: bool = False
    ) -> None:
        sampling = SamplingParams(max_tokens=tokens)
        self.send(EngineRequest(id, lane, (1,) * length, sampling, alone))

    def send(self, request: EngineRequest) -> None:
        self._submitted += 1
        self.streamed[request.id] = ""
        self.engine.submit(request, self._done, lambda text: self._token(request.id, text))

    def wait(self) -> dict[str, EngineOutcome]:
        """Until every request has its outcome."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.outcomes) == self._submitted, 30)
        assert done, f"{self._submitted - len(self.outcomes)} requests without an outcome"
        assert not self.repeated
        return self.outcomes

    def _done(self, outcome: EngineOutcome) -> None:
        with self._changed:
            if outcome.id in self.outcomes:
                self.repeated.append(outcome.id)
            self.outcomes[outcome.id] = outcome
            self._changed.notify_all()

    def _token(self, id: str, text: str) -> None:
        self.streamed[id] += text


@contextmanager
def running(
    runner: Runner, on_admit: Callable[[Sequence[str]], Set[str]] = admit_all
) -> Iterator[Client]:
    engine = Engine(runner, CONFIG, on_admit=on_admit)
    engine.start()
    try:
        yield Client(engine)
    finally:
        engine.stop()


def test_every_request_of_both_lanes_ends_once_with_its_own_text() -> None:
    runner = FakeRunner()
    with running(runner) as client:
        for number in range(300):
            prompt = runner.codec.encode_chat([("user", f"number {number} " + "x" * (number % 37))])
            lane = "express" if number % 10 == 0 else "bulk"
            client.send(EngineRequest(f"r{number}", lane, prompt, SamplingParams()))
        outcomes = client.wait()
    for number in range(300):
        outcome = outcomes[f"r{number}"]
        assert outcome.text is not None
        assert outcome.text.startswith(f"echo: number {number}")
        assert outcome.text == client.streamed[outcome.id]
        assert outcome.finish is FinishReason.STOP
        assert outcome.completion_tokens == len(outcome.text.split())
        assert outcome.ttft is not None


def test_a_chat_is_answered_while_the_bulk_goes_on() -> None:
    runner = ScriptedRunner()
    runner.gate.clear()
    with running(runner) as client:
        for number in range(8):
            client.submit(f"b{number}", tokens=50)
        assert runner.entered.wait(10)
        client.submit("chat", "express", tokens=3)
        runner.gate.set()
        client.wait()
    steps = [index for index, ran in enumerate(runner.ran) if ran == ["chat"]]
    assert steps == [1, 3, 5]


def test_a_waiting_and_a_running_request_are_cancelled() -> None:
    runner = ScriptedRunner()
    runner.gate.clear()
    with running(runner) as client:
        for number in range(9):
            client.submit(f"b{number}", tokens=4)
        assert runner.entered.wait(10)
        client.engine.cancel("b0")
        client.engine.cancel("b8")
        client.engine.cancel("nobody")
        runner.gate.set()
        outcomes = client.wait()
    assert outcomes["b0"].finish is outcomes["b8"].finish is FinishReason.CANCELLED
    assert outcomes["b0"].text is outcomes["b0"].error is None
    assert sum("b0" in ran for ran in runner.ran) <= 1
    assert not any("b8" in ran for ran in runner.ran)
    assert outcomes["b1"].text == runner.answer(4)


def test_only_what_was_admitted_runs() -> None:
    runner = ScriptedRunner()

    def on_admit(ids: Sequence[str]) -> Set[str]:
        return {id for id in ids if id != "lost"}

    with running(runner, on_admit) as client:
        client.submit("kept")
        client.submit("lost")
        outcomes = client.wait()
    assert outcomes["lost"].finish is FinishReason.CANCELLED
    assert outcomes["kept"].text == runner.answer(3)
    assert not any("lost" in ran for ran in runner.ran)


def test_an_admission_that_is_unavailable_is_tried_again_while_live_rows_go_on() -> None:
    runner, calls = ScriptedRunner(), []

    def on_admit(ids: Sequence[str]) -> Set[str]:
        calls.append(list(ids))
        if "chat" in ids and sum("chat" in call for call in calls) < 3:
            raise Unavailable
        return set(ids)

    with running(runner, on_admit) as client:
        client.submit("bulk", tokens=5)
        client.submit("chat", "express")
        outcomes = client.wait()
    assert [outcome.text for outcome in outcomes.values()].count(runner.answer(3)) == 1
    assert calls.count(["chat"]) == 3


def test_rows_that_ran_out_of_memory_run_again_in_smaller_company_unnoticed() -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if len(ids) > 2 and not plan.admit:
            raise OutOfMemory

    runner = ScriptedRunner(fault)
    admitted: list[str] = []

    def on_admit(ids: Sequence[str]) -> Set[str]:
        admitted.extend(ids)
        return set(ids)

    with running(runner, on_admit) as client:
        for number in range(8):
            client.submit(f"b{number}")
        outcomes = client.wait()
    assert all(outcome.text == runner.answer(3) for outcome in outcomes.values())
    assert all(text == runner.answer(3) for text in client.streamed.values())
    assert all(outcome.completion_tokens == 3 for outcome in outcomes.values())
    assert sorted(admitted) == sorted(outcomes)


@pytest.mark.parametrize("capacity", [1, 2, 4, 7])
@pytest.mark.parametrize("lane", ["express", "bulk"])
def test_every_request_ends_whatever_few_rows_the_device_can_hold(lane: str, capacity: int) -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if len(ids) > capacity:
            raise OutOfMemory

    runner = ScriptedRunner(fault)
    runner.gate.clear()
    with running(runner) as client:
        for number in range(20):
            client.submit(f"r{number}", lane)
        runner.gate.set()
        outcomes = client.wait()
    assert {outcome.finish for outcome in outcomes.values()} == {FinishReason.LENGTH}
    assert len(runner.plans) < 300, "it tried the same again and again"


def test_a_runner_that_fails_at_everything_is_given_up_and_the_rest_is_left() -> None:
    def broken(plan: StepPlan, rows: list[str]) -> None:
        raise RuntimeError("device-side assert triggered")

    with running(ScriptedRunner(broken)) as client:
        for number in range(60):
            client.submit(f"r{number}")
        outcomes = client.wait()
        assert not client.engine.alive()
    errors = [outcome for outcome in outcomes.values() if outcome.error is PromptError.ENGINE]
    rest = [outcome for outcome in outcomes.values() if outcome.finish is FinishReason.CANCELLED]
    assert (len(errors), len(rest)) == (MAX_FAILURES_IN_A_ROW, 60 - MAX_FAILURES_IN_A_ROW)


def test_a_prompt_that_does_not_fit_alone_fails_and_the_rest_run() -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if "big" in ids:
            raise OutOfMemory

    runner = ScriptedRunner(fault)
    with running(runner) as client:
        for id in ("a", "big", "c"):
            client.submit(id)
        outcomes = client.wait()
    assert outcomes["big"].error is PromptError.OUT_OF_MEMORY
    assert outcomes["big"].finish is FinishReason.ERROR
    assert "memory" in (outcomes["big"].message or "")
    assert outcomes["a"].text == outcomes["c"].text == runner.answer(3)


def test_a_prompt_that_breaks_the_model_fails_alone_and_nothing_is_shown_twice() -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if "bad" in ids and not plan.admit:
            raise ValueError("a secret of the prompt")

    runner = ScriptedRunner(fault)
    with running(runner) as client:
        for id in ("a", "bad", "c"):
            client.submit(id, tokens=4)
        outcomes = client.wait()
    assert outcomes["bad"].error is PromptError.ENGINE
    assert outcomes["bad"].message == "The model raised ValueError on this prompt."
    for id in ("a", "c"):
        assert outcomes[id].text == client.streamed[id] == runner.answer(4)
    assert client.engine.stats().failures_in_a_row in (0, 1)


def test_a_runner_that_answers_for_other_rows_is_an_error_not_a_hang() -> None:
    class Forgetful(ScriptedRunner):
        def step(self, plan: StepPlan):  # type: ignore[no-untyped-def]
            output = super().step(plan)
            return type(output)(output.rows[:-1])

    with running(Forgetful()) as client:
        client.submit("a")
        assert client.wait()["a"].error is PromptError.ENGINE


def test_a_callback_that_raises_does_not_stop_the_engine() -> None:
    runner = ScriptedRunner()
    with running(runner) as client:

        def explode(_: object) -> None:
            raise RuntimeError

        rude = EngineRequest("rude", "bulk", (1,), SamplingParams(max_tokens=2))
        client.engine.submit(rude, explode, explode)
        client.submit("polite")
        assert client.wait()["polite"].text == runner.answer(3)


def test_drain_ends_what_waits_and_lets_finish_what_runs() -> None:
    runner = ScriptedRunner()
    runner.gate.clear()
    with running(runner) as client:
        for number in range(10):
            client.submit(f"b{number}")
        assert runner.entered.wait(10)
        client.engine.drain()
        client.submit("late")
        runner.gate.set()
        outcomes = client.wait()
        assert client.engine.stats().draining
    finishes = [outcome.finish for outcome in outcomes.values()]
    assert finishes.count(FinishReason.LENGTH) == len(runner.ran[0])
    assert finishes.count(FinishReason.CANCELLED) == 11 - len(runner.ran[0])
    assert outcomes["late"].finish is FinishReason.CANCELLED


def test_stop_cancels_all_and_what_comes_later() -> None:
    runner = ScriptedRunner()
    with running(runner) as client:
        for number in range(20):
            client.submit(f"b{number}", tokens=100_000)
        assert runner.entered.wait(10)
        client.engine.stop()
        client.submit("late")
        outcomes = client.wait()
    assert {outcome.finish for outcome in outcomes.values()} == {FinishReason.CANCELLED}
    assert len(outcomes) == 21


def test_an_engine_that_was_never_started_stops_too() -> None:
    client = Client(Engine(ScriptedRunner(), CONFIG))
    client.submit("a")
    client.engine.stop()
    assert client.wait()["a"].finish is FinishReason.CANCELLED


def test_prompts_that_cannot_run_say_why() -> None:
    with running(ScriptedRunner()) as client:
        client.submit("empty", length=0)
        client.submit("long", length=1_000)
        client.submit("longest", length=999)
        outcomes = client.wait()
    assert outcomes["empty"].error is PromptError.EMPTY
    assert outcomes["long"].error is PromptError.TOO_LONG
    assert outcomes["long"].message == "The prompt has 1000 tokens; the context is 1000."
    assert outcomes["longest"].text is not None


def test_an_unknown_lane_is_refused_at_once() -> None:
    client = Client(Engine(ScriptedRunner(), CONFIG))
    with pytest.raises(InvalidRequest) as refused:
        client.submit("a", "fast")
    assert refused.value.param == "lane"


def test_an_id_that_is_in_the_engine_is_not_run_a_second_time() -> None:
    runner = ScriptedRunner()
    runner.gate.clear()
    repeated: list[EngineOutcome] = []
    with running(runner) as client:
        client.submit("a")
        assert runner.entered.wait(10)
        client.engine.submit(EngineRequest("a", "bulk", (1,), SamplingParams()), repeated.append)
        runner.gate.set()
        assert client.wait()["a"].text == runner.answer(3)
    assert [outcome.finish for outcome in repeated] == [FinishReason.CANCELLED]


def test_one_that_is_alone_shares_no_time_with_any_other() -> None:
    runner = ScriptedRunner()
    with running(runner) as client:
        for number in range(4):
            client.submit(f"b{number}", tokens=6)
            client.submit(f"alone{number}", tokens=6, alone=True)
            client.submit(f"chat{number}", "express", tokens=6)
        client.wait()
    for index, ran in enumerate(runner.ran):
        if ran[0].startswith("alone"):
            assert len(ran) == 1
            first = runner.ran.index(ran)
            assert all(runner.ran[step] == ran for step in range(first, index))


def test_the_age_of_the_last_step_tells_a_stuck_engine_from_an_idle_one() -> None:
    runner, clock = ScriptedRunner(), [100.0]
    engine = Engine(runner, CONFIG, clock=lambda: clock[0])
    client = Client(engine)
    engine.start()
    try:
        assert engine.stats().last_step_age == 0
        runner.gate.clear()
        client.submit("chat", "express")
        assert runner.entered.wait(10)
        clock[0] += 400
        assert engine.stats().last_step_age == 400
        assert engine.stats().running == {"bulk": 0, "express": 1}
        runner.gate.set()
        client.wait()
    finally:
        engine.stop()
    assert engine.stats().last_step_age == 0


def test_stats_count_what_was_done() -> None:
    runner = FakeRunner()
    with running(runner) as client:
        for number in range(8):
            prompt = (65,) * (5 if number else 10)
            client.send(EngineRequest(f"r{number}", "bulk", prompt, SamplingParams()))
        client.wait()
        stats = client.engine.stats()
    assert stats.tokens_in == 45
    assert stats.tokens_out == 16
    assert stats.tokens_read - stats.tokens_needed == 35
    assert stats.padded_share == pytest.approx(35 / stats.tokens_read)
    assert stats.rows_per_step == 8
    assert stats.tokens_per_s > 0
    assert stats.waiting == stats.running == {"bulk": 0, "express": 0}
