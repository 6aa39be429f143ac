"""A row's answer does not depend on its neighbors: it equals that of `generate`, run alone."""

from __future__ import annotations

from typing import Any

import pytest

from models.runner import FinishReason, Row, SamplingParams, StepPlan
from penstock.errors import OutOfMemory
from tests.unit.models.tiny import (
    CONFIGS,
    CONTEXT,
    ENDS,
    Driver,
    alone,
    generated,
    greedy,
    model,
    prompts,
    runner,
)


@pytest.fixture(scope="module")
def llama() -> Any:
    return model("llama")


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_greedy_tokens_of_a_batch_equal_those_of_each_prompt_alone(family: str) -> None:
    made = model(family)
    rows = [
        greedy(f"r{number}", prompt, max_tokens=3 + number * 3 % 25)
        for number, prompt in enumerate(prompts(12))
    ]
    driver = Driver(runner(made))
    texts = driver.run(rows)
    assert texts == {row.id: alone(made, row) for row in rows}
    assert len(set(texts.values())) == len(rows)
    assert len(set(driver.steps.values())) > 4  # they left one by one


def test_greedy_rows_stay_exact_next_to_sampled_ones_and_to_other_micro_batches(
    llama: Any,
) -> None:
    driver = Driver(runner(llama))
    first = [greedy(f"a{number}", prompt) for number, prompt in enumerate(prompts(6))]
    second = [
        greedy(f"b{number}", prompt, repetition_penalty=1.3) if number % 2 else Row(
            f"b{number}", prompt, SamplingParams(max_tokens=9, temperature=1.5, seed=number)
        )
        for number, prompt in enumerate(prompts(6, seed=2))
    ]  # fmt: skip
    driver.step(StepPlan(tuple(first), micro_batch=1))
    driver.step(StepPlan(tuple(second), micro_batch=2))
    going = {1: 1, 2: 1}
    while any(going.values()):
        for number in [n for n, rows in going.items() if rows]:
            going[number] = driver.step(StepPlan(micro_batch=number))
    for row in [*first, *second]:
        if row.sampling.temperature == 0:
            assert driver.texts[row.id] == alone(llama, row)


def test_rows_that_are_dropped_leave_the_others_exact(llama: Any) -> None:
    rows = [greedy(f"r{number}", prompt, 15) for number, prompt in enumerate(prompts(5, seed=3))]
    driver = Driver(runner(llama))
    driver.step(StepPlan(tuple(rows), micro_batch=1))
    driver.step(StepPlan(drop=("r0", "r1"), micro_batch=1))
    while driver.step(StepPlan(micro_batch=1)):
        pass
    assert driver.ended.keys() == {"r2", "r3", "r4"}
    for row in rows[2:]:
        assert driver.texts[row.id] == alone(llama, row)


def test_a_seed_gives_the_same_text_whatever_the_neighbors(llama: Any) -> None:
    chosen = SamplingParams(max_tokens=25, temperature=1.2, top_p=0.9, top_k=40, seed=42)
    row = Row("same", prompts(1)[0], chosen)
    single = Driver(runner(llama)).run([row])["same"]
    company = [
        Row(f"r{number}", prompt, SamplingParams(max_tokens=4 * number + 1, temperature=0.9))
        for number, prompt in enumerate(prompts(7, seed=5))
    ]
    assert Driver(runner(llama)).run([*company[:3], row, *company[3:]])["same"] == single
    other = Row("same", row.prompt, SamplingParams(max_tokens=25, temperature=1.2, seed=43))
    assert Driver(runner(llama)).run([other])["same"] != single


def test_a_row_without_a_seed_says_the_same_when_it_is_run_again(llama: Any) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.5)
    again = [Driver(runner(llama)).run([Row("x", prompts(1)[0], params)])["x"] for _ in range(2)]
    other = Driver(runner(llama)).run([Row("y", prompts(1)[0], params)])["y"]
    assert again[0] == again[1] != other


def test_a_row_ends_for_length_at_its_own_limit_or_at_the_context(llama: Any) -> None:
    llama.generation_config.eos_token_id, ends = None, llama.generation_config.eos_token_id
    try:
        driver = Driver(runner(llama))
        driver.run([greedy("a", (20,) * 5, 4), greedy("b", (20,) * (CONTEXT - 6), 99)])
    finally:
        llama.generation_config.eos_token_id = ends
    assert driver.steps == {"a": 4, "b": 6}
    assert set(driver.finishes.values()) == {FinishReason.LENGTH}


def test_learned_positions_are_not_overrun_by_rows_that_are_over() -> None:
    made = model("gpt2")
    made.generation_config.eos_token_id = None
    rows = [greedy(f"r{number}", (20 + number,) * 10, 60) for number in range(8)]
    driver = Driver(runner(made))
    driver.run([greedy("full", (20,) * (CONTEXT - 2), 99), *rows])
    assert driver.steps["full"] == 2
    assert driver.texts["r3"] == alone(made, rows[3])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_stop_text_ends_a_row_and_is_not_shown(family: str) -> None:
    made = model(family)
    row = greedy("r", prompts(1)[0], 30)
    whole = alone(made, row).split()
    stop = " ".join(whole[4:6])
    stopped = Row("r", row.prompt, SamplingParams(max_tokens=30, temperature=0, stop=(stop,)))
    driver = Driver(runner(made))
    driver.run([stopped, greedy("other", prompts(2)[1], 10)])
    expected = " ".join(whole).split(stop)[0]
    assert driver.texts["r"] == expected
    assert driver.finishes["r"] is FinishReason.STOP


def test_an_end_token_ends_a_row_without_a_trace(llama: Any) -> None:
    rows = [greedy(f"r{number}", prompt, 100) for number, prompt in enumerate(prompts(8))]
    driver = Driver(runner(llama))
    driver.run(rows)
    for row in rows:
        tokens = generated(llama, row)
        stopped = tokens[-1] in ENDS
        assert driver.steps[row.id] == len(tokens)
        assert driver.finishes[row.id] is (FinishReason.STOP if stopped else FinishReason.LENGTH)
    assert FinishReason.STOP in driver.finishes.values()


def test_pads_are_counted_as_read_but_not_as_needed(llama: Any) -> None:
    driver = Driver(runner(llama))
    driver.run([greedy("a", (20, 21), 3), greedy("b", (22,) * 10, 3)])
    assert driver.read[0] == (20, 12)
    assert all(read == needed == 2 for read, needed in driver.read[1:2])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_is_told_and_the_micro_batch_is_gone(
    llama: Any, error: Exception
) -> None:
    made = runner(llama)
    driver = Driver(made)
    driver.step(StepPlan((greedy("a", (20, 21)),), micro_batch=1))

    def full(*_: object) -> None:
        raise error

    hook = llama.register_forward_pre_hook(full)
    try:
        with pytest.raises(OutOfMemory):
            made.step(StepPlan(micro_batch=1))
    finally:
        hook.remove()
    with pytest.raises(KeyError):
        made.step(StepPlan(micro_batch=1))
    made.forget(1)
    assert Driver(made).run([greedy("a", (20, 21))], number=2)["a"]


def test_an_output_that_is_not_a_number_is_an_error_not_a_text(llama: Any) -> None:
    def broken(_module: Any, _inputs: Any, output: Any) -> Any:
        output.logits = output.logits * float("nan")
        return output

    hook = llama.register_forward_hook(broken)
    try:
        with pytest.raises(FloatingPointError):
            runner(llama).step(StepPlan((greedy("a", (20, 21)),), micro_batch=1))
    finally:
        hook.remove()
