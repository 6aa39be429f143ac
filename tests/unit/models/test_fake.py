"""The fake runner keeps the rules that the real one keeps."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from models.fake import FakeRunner
from models.runner import FinishReason, Row, SamplingParams, StepOutput, StepPlan


def answer(params: SamplingParams, text: str = "one two three four") -> tuple[str, FinishReason]:
    runner = FakeRunner()
    row = Row("r", runner.codec.encode_chat([("system", "be brief"), ("user", text)]), params)
    plan, out = StepPlan(1, admit=(row,)), ""
    while True:
        (step,) = runner.step(plan).rows
        out += step.text
        if step.finish is not None:
            return out, step.finish
        plan = StepPlan(1)


def test_it_repeats_the_last_message_of_the_user() -> None:
    assert answer(SamplingParams()) == ("echo: one two three four", FinishReason.STOP)
    assert answer(SamplingParams(), "ünïcödé 🎉 fine")[0] == "echo: ünïcödé 🎉 fine"


def test_max_tokens_cuts_it() -> None:
    assert answer(SamplingParams(max_tokens=2)) == ("echo: one", FinishReason.LENGTH)


def test_a_stop_text_across_words_cuts_it_and_is_hidden() -> None:
    assert answer(SamplingParams(stop=("o th", "four"))) == ("echo: one tw", FinishReason.STOP)
    assert answer(SamplingParams(stop=("echo",))) == ("", FinishReason.STOP)


def test_a_seed_orders_the_words_only_when_there_is_a_temperature() -> None:
    texts = {answer(SamplingParams(seed=seed))[0] for seed in range(5)}
    assert len(texts) > 1
    assert answer(SamplingParams(seed=3)) == answer(SamplingParams(seed=3))
    assert answer(SamplingParams(seed=3, temperature=0))[0] == "echo: one two three four"


def test_the_context_cuts_it() -> None:
    runner = FakeRunner(context=20)
    output = runner.step(StepPlan(1, admit=(Row("r", (65,) * 19, SamplingParams()),)))
    assert [(step.text, step.finish) for step in output.rows] == [("echo:", FinishReason.LENGTH)]


def test_dropped_rows_say_nothing_more_and_forgotten_ones_are_gone() -> None:
    runner = FakeRunner()
    rows = tuple(Row(id, tuple(b"a b c"), SamplingParams()) for id in "xyz")
    assert runner.step(StepPlan(1, admit=rows)) == StepOutput(
        runner.step(StepPlan(2, admit=rows)).rows, 15, 15
    )
    assert [step.id for step in runner.step(StepPlan(1, drop=("y",))).rows] == ["x", "z"]
    runner.forget(1)
    runner.forget(1)
    with pytest.raises(KeyError):
        runner.step(StepPlan(1))


def test_its_speed_is_that_of_one_row() -> None:
    runner = FakeRunner(tokens_per_second=100)
    row = Row("r", tuple(b"a b c"), SamplingParams())
    began = time.monotonic()
    runner.step(StepPlan(1, admit=(row,)))
    runner.step(StepPlan(1))
    assert time.monotonic() - began >= 0.02


def test_it_needs_no_torch_and_crashes_only_when_it_may() -> None:
    program = (
        "import sys; from models.fake import FakeRunner; from models.runner import *\n"
        "row = Row('r', tuple(b'<<crash>>'), SamplingParams())\n"
        "FakeRunner().step(StepPlan(1, admit=(row,)))\n"
        "assert 'torch' not in sys.modules; print('alive', flush=True)\n"
        "FakeRunner(dangerous=True).step(StepPlan(1, admit=(row,)))\n"
        "print('not reached')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"alive\n")
