"""The fake runner keeps the rules that the real ones keep."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from models.fake import FakeRunner
from models.runner import (
    Chunk,
    Constraint,
    FinishReason,
    Place,
    Purpose,
    Region,
    Row,
    SamplingParams,
    StepPlan,
)
from penstock.errors import OutOfMemory
from tests.unit.models.tiny import Driver


def answer(
    params: SamplingParams, text: str = "one two three four", branch: int = 0
) -> tuple[str, FinishReason | None]:
    runner = FakeRunner()
    prompt = runner.codec.encode_chat([("system", "be brief"), ("user", text)])
    driver = Driver(runner, chunk=7)
    driver.run([Row("r", prompt, params, branch=branch)])
    return driver.texts["r"], driver.finishes["r"]


def constrained(kind: Any, value: Any) -> str:
    constraint = Constraint(kind, value if isinstance(value, str) else json.dumps(value))
    return answer(SamplingParams(constraint=constraint))[0]


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


def test_branches_draw_their_own_when_there_is_a_temperature() -> None:
    texts = {answer(SamplingParams(), branch=branch)[0] for branch in range(4)}
    assert len(texts) > 1
    assert "echo: one two three four" in texts
    assert len({answer(SamplingParams(temperature=0), branch=branch) for branch in range(4)}) == 1


def test_the_context_cuts_it() -> None:
    driver = Driver(FakeRunner(context=20))
    driver.run([Row("r", (65,) * 19, SamplingParams())])
    assert (driver.texts["r"], driver.finishes["r"]) == ("echo:", FinishReason.LENGTH)


def test_constrained_answers_are_what_was_asked_for() -> None:
    assert constrained("choices", ["two words", "one"]) == "two words"
    assert constrained("regex", "[b-d]+x") == "bcdx"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert isinstance(json.loads(constrained("json_schema", schema))["a"], int)


def test_labels_have_scores_that_favor_the_shortest() -> None:
    choices = (tuple(b"long one"), tuple(b"short"))
    driver = Driver(FakeRunner())
    driver.run([Row("r", (65,) * 30, SamplingParams(), Purpose.SCORE, choices)])
    assert driver.ended["r"].scores == (-8.0, -5.0)


def test_only_rows_that_are_asked_to_decode_do() -> None:
    runner = FakeRunner()
    rows = tuple(Row(id, tuple(b"a b c"), SamplingParams(), stream=True) for id in "xy")
    places = (Place(Region(0, 20)), Place(Region(20, 20), copy=Region(0, 4)))
    first = runner.step(StepPlan(rows, places, (Chunk("x", 5), Chunk("y", 1))))
    assert (first.started, first.sampled, first.tokens_read) == (("x", "y"), 2, 6)
    alone = runner.step(StepPlan(decode=frozenset({"y"})))
    assert [(step.id, step.text) for step in alone.rows] == [("y", " a")]
    assert (alone.sampled, alone.keys_read) == (1, 6)
    assert [step.id for step in runner.step(StepPlan(drop=("y", "none"))).rows] == ["x"]


def test_its_speed_is_that_of_one_row() -> None:
    began = time.monotonic()
    Driver(FakeRunner(tokens_per_second=100)).run([Row("r", tuple(b"a"), SamplingParams())])
    assert time.monotonic() - began >= 0.02


def test_one_that_takes_the_room_of_many_fails_only_in_company_and_where_it_may() -> None:
    rows = [Row(f"r{n}", tuple(b"one two three"), SamplingParams()) for n in range(6)]
    greedy = Row("greedy", tuple(b"one <<memory>> two"), SamplingParams())
    Driver(FakeRunner(dangerous=True)).run([greedy])
    Driver(FakeRunner()).run([*rows, greedy])
    runner = FakeRunner(dangerous=True)
    places = tuple(Place(Region(50 * n, 50)) for n in range(6))
    runner.step(StepPlan(tuple(rows), places, tuple(Chunk(row.id, 13) for row in rows)))
    with pytest.raises(OutOfMemory):
        runner.step(StepPlan((greedy,), (Place(Region(300, 50)),), (Chunk("greedy", 18),)))


def test_it_needs_no_torch_and_crashes_only_when_it_may() -> None:
    program = (
        "import sys; from models.fake import FakeRunner; from models.runner import *\n"
        "row = Row('r', tuple(b'<<crash>>'), SamplingParams())\n"
        "plan = StepPlan((row,), (Place(Region(0, 99)),), (Chunk('r', 9),))\n"
        "FakeRunner().step(plan)\n"
        "assert not {'torch', 'llguidance'} & set(sys.modules); print('alive', flush=True)\n"
        "FakeRunner(dangerous=True).step(plan)\n"
        "print('not reached')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"alive\n")


def test_the_check_of_constraints_needs_no_torch() -> None:
    program = (
        "import sys; from models.constraints import check_constraint\n"
        "from models.runner import Constraint\n"
        "check_constraint(Constraint('regex', 'a+')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
