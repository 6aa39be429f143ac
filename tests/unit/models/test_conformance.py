"""What every runner must do, the fake one and the real one alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.fake import FakeRunner
from models.runner import FinishReason, Row, Runner, SamplingParams, StepPlan
from tests.unit.models.tiny import model
from tests.unit.models.tiny import runner as padded

CONTEXT = 40


def real_runner() -> Runner:
    made = model("llama")
    made.generation_config.eos_token_id = None
    return padded(made, CONTEXT)


@pytest.fixture(params=[lambda: FakeRunner(context=CONTEXT), real_runner], ids=["fake", "padded"])
def runner(request: pytest.FixtureRequest) -> Runner:
    make: Callable[[], Runner] = request.param
    return make()


def row(id: str, length: int = 9, **params: object) -> Row:
    sampling = SamplingParams(**{"max_tokens": 4, "temperature": 0.0, **params})  # type: ignore[arg-type]
    return Row(id, tuple(b"ab cd ef gh ij kl mn"[:length]), sampling)


def run(runner: Runner, *rows: Row, number: int = 1) -> dict[str, tuple[str, FinishReason, int]]:
    """Text, finish and steps of each row."""
    texts = {one.id: "" for one in rows}
    ended: dict[str, tuple[str, FinishReason, int]] = {}
    plan, steps = StepPlan(number, admit=rows), 0
    while len(ended) < len(rows):
        output, steps = runner.step(plan), steps + 1
        assert {step.id for step in output.rows} == texts.keys() - ended.keys()
        assert output.tokens_read >= output.tokens_needed >= len(output.rows)
        for step in output.rows:
            texts[step.id] += step.text
            if step.finish is not None:
                ended[step.id] = (texts[step.id], step.finish, steps)
        plan = StepPlan(number)
    return ended


def test_each_row_has_its_own_limit(runner: Runner) -> None:
    ended = run(runner, *(row(f"r{most}", max_tokens=most) for most in (1, 2, 3)))
    assert {id: steps for id, (_, _, steps) in ended.items()} == {"r1": 1, "r2": 2, "r3": 3}
    assert {finish for _, finish, _ in ended.values()} == {FinishReason.LENGTH}
    assert ended["r3"][0].startswith(ended["r2"][0])


def test_the_context_ends_a_row(runner: Runner) -> None:
    long = Row("long", (98,) * (CONTEXT - 1), SamplingParams(max_tokens=9))
    assert run(runner, long)["long"][1:] == (FinishReason.LENGTH, 1)


def test_a_stop_text_is_hidden_and_is_the_reason(runner: Runner) -> None:
    whole = run(runner, row("r"), number=1)["r"][0]
    stop = whole[len(whole) // 2 :][:3]
    text, finish, _ = run(runner, row("r", stop=(stop,)), number=2)["r"]
    assert text == whole[: whole.index(stop)]
    assert finish is FinishReason.STOP


def test_the_same_row_says_the_same_again(runner: Runner) -> None:
    drawn = row("r", temperature=1.0, seed=5)
    first = run(runner, drawn, number=1)["r"]
    assert run(runner, row("x"), drawn, row("y"), number=2)["r"] == first


def test_micro_batches_step_independently_and_dropped_rows_fall_silent(runner: Runner) -> None:
    runner.step(StepPlan(1, admit=(row("a"), row("b"))))
    runner.step(StepPlan(2, admit=(row("c"),)))
    assert [step.id for step in runner.step(StepPlan(1, drop=("a",))).rows] == ["b"]
    assert [step.id for step in runner.step(StepPlan(2)).rows] == ["c"]
    assert [step.id for step in runner.step(StepPlan(1)).rows] == ["b"]


def test_a_micro_batch_can_be_forgotten_at_any_time_and_twice(runner: Runner) -> None:
    runner.forget(1)
    runner.step(StepPlan(1, admit=(row("a"),)))
    runner.forget(1)
    runner.forget(1)
    assert run(runner, row("a"), number=1)


def test_it_says_what_it_is(runner: Runner) -> None:
    assert runner.info.context == CONTEXT
    assert runner.info.runner in ("fake", "padded")
    assert runner.codec.encode_chat([("user", "hi")])
