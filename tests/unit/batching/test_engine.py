"""The engine's loop, on scripted runners of both kinds and on the fake one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace

import pytest

from batching.engine import MAX_FAILURES_IN_A_ROW, Engine
from batching.gate import admit_all
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from models.fake import FakeRunner
from models.runner import FinishReason, RowStep, Runner, SamplingParams, StepOutput, StepPlan
from penstock.errors import InvalidRequest, OutOfMemory, PromptError, Unavailable
from tests.unit.batching.scripted import Scripted, ScriptedPacked, ScriptedPadded

CONFIG = EngineConfig(max_rows=8, max_batch_tokens=1_000, max_wait=0.01, express_rows=2)

Make = Callable[..., Scripted]


@pytest.fixture(params=["padded", "packed", "late"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes runners of each kind, `late` ones tell of a step with the next one."""
    made: list[Scripted] = []

    def new(fault: Callable[[StepPlan, list[str]], None] | None = None) -> Scripted:
        kinds: dict[str, Callable[[], Scripted]] = {
            "padded": lambda: ScriptedPadded(fault),
            "packed": lambda: ScriptedPacked(fault),
            "late": lambda: ScriptedPacked(fault, late=True),
        }
        made.append(kinds[request.param]())
        return made[-1]

    yield new
    assert not any(runner.broken for runner in made if isinstance(runner, ScriptedPacked))


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


def test_a_chat_is_answered_while_micro_batches_of_bulk_go_on() -> None:
    runner = ScriptedPadded()
    answer_a_chat_beside_bulk(runner)
    steps = [index for index, ran in enumerate(runner.ran) if ran == ["chat"]]
    assert steps == [1, 3, 5]


def test_a_packed_chat_has_a_step_for_its_prompt_and_then_rides_along() -> None:
    runner = ScriptedPacked()
    answer_a_chat_beside_bulk(runner)
    steps = [ran for ran in runner.ran if "chat" in ran]
    assert [len(ran) for ran in steps] == [1, 9, 9]
    assert runner.ran.index(["chat"]) == 1


def answer_a_chat_beside_bulk(runner: Scripted) -> None:
    """Bulk runs when the chat comes."""
    runner.gate.clear()
    with running(runner) as client:
        for number in range(8):
            client.submit(f"b{number}", tokens=50)
        assert runner.entered.wait(10)
        client.submit("chat", "express", tokens=3)
        runner.gate.set()
        client.wait()


def test_a_waiting_and_a_running_request_are_cancelled(make: Make) -> None:
    runner = make()
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


def test_only_what_was_admitted_runs(make: Make) -> None:
    runner = make()

    def on_admit(ids: Sequence[str]) -> Set[str]:
        return {id for id in ids if id != "lost"}

    with running(runner, on_admit) as client:
        client.submit("kept")
        client.submit("lost")
        outcomes = client.wait()
    assert outcomes["lost"].finish is FinishReason.CANCELLED
    assert outcomes["kept"].text == runner.answer(3)
    assert not any("lost" in ran for ran in runner.ran)


def test_an_admission_that_is_unavailable_is_tried_again_while_live_rows_go_on(make: Make) -> None:
    runner, calls = make(), []

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


def test_rows_that_ran_out_of_memory_run_again_in_smaller_company_unnoticed(make: Make) -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if len(ids) > 2 and not plan.admit:
            raise OutOfMemory

    runner = make(fault)
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
def test_every_request_ends_whatever_few_rows_the_device_can_hold(
    make: Make, lane: str, capacity: int
) -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if len(ids) > capacity:
            raise OutOfMemory

    runner = make(fault)
    runner.gate.clear()
    with running(runner) as client:
        for number in range(20):
            client.submit(f"r{number}", lane)
        runner.gate.set()
        outcomes = client.wait()
    assert {outcome.finish for outcome in outcomes.values()} == {FinishReason.LENGTH}
    assert len(runner.plans) < 300, "it tried the same again and again"


def test_a_runner_that_fails_at_everything_is_given_up_and_the_rest_is_left(make: Make) -> None:
    def broken(plan: StepPlan, rows: list[str]) -> None:
        raise RuntimeError("device-side assert triggered")

    with running(make(broken)) as client:
        for number in range(60):
            client.submit(f"r{number}")
        outcomes = client.wait()
        assert not client.engine.alive()
    errors = [outcome for outcome in outcomes.values() if outcome.error is PromptError.ENGINE]
    rest = [outcome for outcome in outcomes.values() if outcome.finish is FinishReason.CANCELLED]
    assert (len(errors), len(rest)) == (MAX_FAILURES_IN_A_ROW, 60 - MAX_FAILURES_IN_A_ROW)


def test_a_prompt_that_does_not_fit_alone_fails_and_the_rest_run(make: Make) -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if "big" in ids:
            raise OutOfMemory

    runner = make(fault)
    with running(runner) as client:
        for id in ("a", "big", "c"):
            client.submit(id)
        outcomes = client.wait()
    assert outcomes["big"].error is PromptError.OUT_OF_MEMORY
    assert outcomes["big"].finish is FinishReason.ERROR
    assert "memory" in (outcomes["big"].message or "")
    assert outcomes["a"].text == outcomes["c"].text == runner.answer(3)


def test_a_prompt_that_breaks_the_model_fails_alone_and_nothing_is_shown_twice(make: Make) -> None:
    def fault(plan: StepPlan, ids: list[str]) -> None:
        if "bad" in ids and not plan.admit:
            raise ValueError("a secret of the prompt")

    runner = make(fault)
    with running(runner) as client:
        for id in ("a", "bad", "c"):
            client.submit(id, tokens=4)
        outcomes = client.wait()
    assert outcomes["bad"].error is PromptError.ENGINE
    assert outcomes["bad"].message == "The model raised ValueError on this prompt."
    for id in ("a", "c"):
        assert outcomes[id].text == client.streamed[id] == runner.answer(4)
    assert client.engine.stats().failures_in_a_row in (0, 1)


def test_a_padded_runner_that_answers_for_other_rows_is_an_error_not_a_hang() -> None:
    class Confused(ScriptedPadded):
        def step(self, plan: StepPlan) -> StepOutput:
            return StepOutput((RowStep("nobody", "x"),))

    with running(Confused()) as client:
        client.submit("a")
        assert client.wait()["a"].error is PromptError.ENGINE


def test_a_callback_that_raises_does_not_stop_the_engine(make: Make) -> None:
    runner = make()
    with running(runner) as client:

        def explode(_: object) -> None:
            raise RuntimeError

        rude = EngineRequest("rude", "bulk", (1,), SamplingParams(max_tokens=2))
        client.engine.submit(rude, explode, explode)
        client.submit("polite")
        assert client.wait()["polite"].text == runner.answer(3)


def test_drain_ends_what_waits_and_lets_finish_what_runs(make: Make) -> None:
    runner = make()
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


def test_stop_cancels_all_and_what_comes_later(make: Make) -> None:
    runner = make()
    with running(runner) as client:
        for number in range(20):
            client.submit(f"b{number}", tokens=100_000)
        assert runner.entered.wait(10)
        client.engine.stop()
        client.submit("late")
        outcomes = client.wait()
    assert {outcome.finish for outcome in outcomes.values()} == {FinishReason.CANCELLED}
    assert len(outcomes) == 21


def test_an_engine_that_was_never_started_stops_too(make: Make) -> None:
    client = Client(Engine(make(), CONFIG))
    client.submit("a")
    client.engine.stop()
    assert client.wait()["a"].finish is FinishReason.CANCELLED


def test_prompts_that_cannot_run_say_why(make: Make) -> None:
    with running(make()) as client:
        client.submit("empty", length=0)
        client.submit("long", length=1_000)
        client.submit("longest", length=999)
        outcomes = client.wait()
    assert outcomes["empty"].error is PromptError.EMPTY
    assert outcomes["long"].error is PromptError.TOO_LONG
    assert outcomes["long"].message == "The prompt has 1000 tokens; the context is 1000."
    assert outcomes["longest"].text is not None


def test_an_unknown_lane_is_refused_at_once(make: Make) -> None:
    client = Client(Engine(make(), CONFIG))
    with pytest.raises(InvalidRequest) as refused:
        client.submit("a", "fast")
    assert refused.value.param == "lane"


def test_an_id_that_is_in_the_engine_is_not_run_a_second_time(make: Make) -> None:
    runner = make()
    runner.gate.clear()
    repeated: list[EngineOutcome] = []
    with running(runner) as client:
        client.submit("a")
        assert runner.entered.wait(10)
        client.engine.submit(EngineRequest("a", "bulk", (1,), SamplingParams()), repeated.append)
        runner.gate.set()
        assert client.wait()["a"].text == runner.answer(3)
    assert [outcome.finish for outcome in repeated] == [FinishReason.CANCELLED]


def test_one_that_is_alone_shares_no_time_with_any_other(make: Make) -> None:
    runner = make()
    with running(runner) as client:
        for number in range(4):
            client.submit(f"b{number}", tokens=6)
            client.submit(f"alone{number}", tokens=6, alone=True)
            client.submit(f"chat{number}", "express", tokens=6)
        client.wait()
    for index, ran in enumerate(runner.ran):
        if any(id.startswith("alone") for id in ran):
            assert len(ran) == 1
            first = runner.ran.index(ran)
            assert all(runner.ran[step] == ran for step in range(first, index))


def test_the_age_of_the_last_step_tells_a_stuck_engine_from_an_idle_one(make: Make) -> None:
    runner, clock = make(), [100.0]
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
    assert stats.tokens_read == stats.tokens_needed == 45 + 8
    assert stats.padded_share == 0
    assert stats.runner == "fake"
    assert stats.time_per_token > 0
    assert stats.rows_per_step == 8
    assert stats.tokens_per_s > 0
    assert stats.waiting == stats.running == {"bulk": 0, "express": 0}


def test_each_of_several_answers_comes_and_one_outcome_has_them_all(make: Make) -> None:
    runner = make()
    with running(runner) as client:
        request = EngineRequest("a", "express", (1,) * 50, SamplingParams(max_tokens=3), n=4)
        client.send(request)
        client.submit("b")
        outcome = client.wait()["a"]
        stats = client.engine.stats()
    assert [completion.text for completion in outcome.completions] == [runner.answer(3)] * 4
    assert outcome.text == client.streamed["a"] == runner.answer(3)
    assert outcome.completion_tokens == 12
    assert stats.tokens_out == 15
    assert stats.waiting == stats.running == {"bulk": 0, "express": 0}


def test_several_answers_are_cancelled_and_refused_together(make: Make) -> None:
    runner = make()
    runner.gate.clear()

    def on_admit(ids: Sequence[str]) -> Set[str]:
        return {id for id in ids if id != "lost"}

    with running(runner, on_admit) as client:
        for id in ("lost", "kept", "cancelled"):
            sampling = SamplingParams(max_tokens=4)
            client.send(EngineRequest(id, "bulk", (len(id),) * 3, sampling, n=5))
        client.engine.cancel("cancelled")
        runner.gate.set()
        outcomes = client.wait()
    finishes = {id: outcome.finish for id, outcome in outcomes.items()}
    assert finishes["lost"] is finishes["cancelled"] is FinishReason.CANCELLED
    assert len(outcomes["kept"].completions) == 5
    assert not any(id.startswith("lost") for ran in runner.ran for id in ran)


def test_scores_are_the_outcome_of_a_request_with_choices() -> None:
    with running(ScriptedPacked()) as client:
        choices = ((1, 2), (3,))
        client.send(EngineRequest("a", "bulk", (1, 2), SamplingParams(), choices=choices))
        outcome = client.wait()["a"]
        stats = client.engine.stats()
    assert (outcome.text, outcome.scores, outcome.completions) == ("", (-2.0, -1.0), ())
    assert outcome.finish is FinishReason.STOP
    assert outcome.ttft is not None
    assert stats.ttft["bulk"] > 0


def test_a_deadline_ends_what_waits_and_what_runs(make: Make) -> None:
    clock, runner = [100.0], make()
    engine = Engine(runner, CONFIG, clock=lambda: clock[0])
    client = Client(engine)
    runner.gate.clear()
    engine.start()
    try:
        sampling = SamplingParams(max_tokens=500)
        for number in range(12):
            client.send(EngineRequest(f"r{number}", "express", (1,), sampling, deadline=150.0))
        client.send(EngineRequest("past", "express", (1,), sampling, deadline=99.0))
        client.send(EngineRequest("free", "bulk", (1,), SamplingParams(max_tokens=3), deadline=1e9))
        assert runner.entered.wait(10)
        clock[0] = 150.0
        runner.gate.set()
        outcomes = client.wait()
    finally:
        engine.stop()
    assert outcomes.pop("free").text == runner.answer(3)
    assert {outcome.finish for outcome in outcomes.values()} == {FinishReason.CANCELLED}
    assert len(runner.plans) < 100


def test_a_runner_may_refuse_a_row_and_say_why() -> None:
    class Choosy(ScriptedPacked):
        def run(self, plan: StepPlan) -> StepOutput:
            refused = [row.id for row in plan.admit if row.id == "bad"]
            output = super().run(plan)
            for id in refused:
                del self.live[id]
            steps = [RowStep(id, "No such schema.", FinishReason.ERROR) for id in refused]
            return replace(output, rows=(*output.rows, *steps))

    runner = Choosy()
    with running(runner) as client:
        client.submit("bad")
        client.submit("good")
        outcomes = client.wait()
    assert outcomes["bad"].error is PromptError.INVALID_REQUEST
    assert outcomes["bad"].message == "No such schema."
    assert outcomes["good"].text == runner.answer(3)


def test_prompts_that_no_memory_could_hold_say_what_they_need() -> None:
    with running(ScriptedPacked(kv_tokens=100)) as client:
        client.submit("a", length=90, tokens=11)
        client.send(
            EngineRequest("b", "bulk", (1,) * 995, SamplingParams(), choices=((1,) * 6, (2,)))
        )
        outcomes = client.wait()
    assert outcomes["a"].error is PromptError.OUT_OF_MEMORY
    assert outcomes["a"].message is not None
    assert "101" in outcomes["a"].message and "100" in outcomes["a"].message
    assert outcomes["b"].error is PromptError.TOO_LONG


def test_a_shared_instruction_shows_in_the_outcomes_and_in_the_stats() -> None:
    common = tuple(range(500, 540))
    runner = ScriptedPacked()
    with running(runner) as client:
        for number in range(20):
            sampling = SamplingParams(max_tokens=2)
            client.send(
                EngineRequest(f"r{number}", "bulk", (*common, number, 1), sampling, group="g")
            )
        outcomes = client.wait()
        stats = client.engine.stats()
    cached = [outcome.cached_tokens for outcome in outcomes.values()]
    assert sorted(cached) == [0] + [len(common)] * 19
    assert stats.tokens_cached == sum(cached)
    assert stats.tokens_read == stats.tokens_needed
    assert stats.kv_cached == len(common)
    assert stats.kv_used == 0


def test_the_age_of_the_oldest_that_waits_is_told_by_lane() -> None:
    runner, clock = ScriptedPacked(), [100.0]
    engine = Engine(runner, CONFIG, clock=lambda: clock[0])
    client = Client(engine)
    runner.gate.clear()
    engine.start()
    try:
        for number in range(3):
            client.submit(f"r{number}", "express")
        assert runner.entered.wait(10)
        clock[0] += 30
        seen = engine.stats().oldest_waiting
        runner.gate.set()
        client.wait()
    finally:
        engine.stop()
    assert seen["bulk"] == 0
    assert seen["express"] in (0, 30)  # the third waits, unless it came after the first step


def test_an_engine_that_stops_leaves_no_row_in_its_runner() -> None:
    runner = ScriptedPacked()
    engine = Engine(runner, CONFIG)
    engine.start()
    entered: list[str] = []
    for number in range(4):
        request = EngineRequest(f"r{number}", "bulk", (1,), SamplingParams(max_tokens=10**6))
        engine.submit(request, lambda outcome: entered.append(outcome.id))
    assert runner.entered.wait(10)
    engine.stop()
    assert len(entered) == 4
    assert not runner.live
