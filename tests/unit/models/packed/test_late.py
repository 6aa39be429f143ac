"""A runner that reads each step when the next one runs already says the same as one that reads at
once, token for token."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from models.packed.pending import only
from models.packed.runner import Forward
from models.runner import Constraint, FinishReason, Purpose, Row, SamplingParams, StepPlan
from models.sampling import Logprobs, Sampled
from penstock.errors import OutOfMemory
from tests.unit.models.packed.desk import SLOTS, Desk, Device, Heard, runner
from tests.unit.models.tiny import CONTEXT, VOCABULARY

LABELS = ((20, 21, 22), (20, 21, 23), (20, 30), (40,))
SHARED = tuple(random.Random(7).choices(range(14, VOCABULARY), k=20))
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0, "seed": 3, "top_p": 0.9},
    {"temperature": 1.3, "repetition_penalty": 1.4, "frequency_penalty": 0.6},
    {"logprobs": 2},
    {"stop": ("A", "b", "7", "(", "e", "x", "K")},
    {"temperature": 0.8, "top_k": 12, "min_p": 0.05},
    {"constraint": Constraint("regex", "[a-z]{2,9}")},
)


def rows(count: int, kinds: tuple[dict[str, Any], ...] = KINDS, seed: int = 0) -> list[Row]:
    source = random.Random(seed)

    def tokens() -> tuple[int, ...]:
        return tuple(source.randrange(14, VOCABULARY) for _ in range(source.randint(1, 40)))

    made = [Row("begin", SHARED, SamplingParams(), Purpose.PREFIX)]
    for number in range(count):
        kind = {
            "temperature": 0.0,
            "max_tokens": source.randint(1, 16),
            **kinds[number % len(kinds)],
        }
        shares = number % 3 == 0
        id, prompt = (f"{number} shares", SHARED + tokens()) if shares else (f"{number}", tokens())
        if number % 5 == 4:
            made.append(Row(id, prompt, SamplingParams(**kind), Purpose.SCORE, LABELS))
        else:
            made.append(Row(id, prompt, SamplingParams(**kind), stream=number % 4 == 1))
    return made


def same(found: dict[str, Heard], wanted: dict[str, Heard]) -> None:
    assert found.keys() == wanted.keys()
    for id, one in found.items():
        two = wanted[id]
        assert (one.text, one.finish, one.tokens, one.started) == (
            (two.text, two.finish, two.tokens, two.started)
        )
        assert [part.token for part in one.logprobs] == [part.token for part in two.logprobs]
        for ours, theirs in zip(one.logprobs, two.logprobs, strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert one.scores == pytest.approx(two.scores, abs=1e-3)


@pytest.mark.parametrize("graphs", [False, True], ids=["as it is", "by graphs"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2"])
def test_late_reading_changes_nothing_that_rows_say(family: str, graphs: bool) -> None:
    wanted = Desk(runner(family, late=False)).run(rows(40))
    assert {one.finish for one in wanted.values()} == {FinishReason.STOP, FinishReason.LENGTH}
    same(Desk(runner(family, late=True, graphs=graphs)).run(rows(40)), wanted)


def test_each_output_is_of_the_step_before_until_an_empty_plan() -> None:
    desk = Desk(runner("llama", late=True))
    desk.heard["a"] = Heard()
    prompt = tuple(range(20, 30))
    first = desk.step((Row("a", prompt, SamplingParams(max_tokens=1, temperature=0.0)),))
    assert (first.rows, first.started, first.sampled, first.pending) == ((), (), 0, True)
    second = desk.step()
    assert (second.rows[0].id, second.started, second.sampled) == ("a", ("a",), 1)
    assert (second.tokens_read, second.pending) == (10, True)  # the row took part once more
    third = desk.step()
    assert (third.rows, third.sampled, third.pending) == ((), 0, False)


def test_a_constrained_row_is_read_at_once_with_what_is_still_pending() -> None:
    desk = Desk(runner("llama", late=True))
    desk.heard |= {"a": Heard(), "b": Heard()}
    long: dict[str, Any] = {"max_tokens": 9, "temperature": 0.0}
    assert desk.step((Row("a", (20, 21), SamplingParams(**long), stream=True),)).pending
    bound = SamplingParams(**long, constraint=Constraint("regex", "[a-z]{2,9}"))
    output = desk.step((Row("b", (22, 23), bound, stream=True),))
    assert not output.pending
    assert set(output.started) == {"a", "b"}
    assert output.sampled == 3  # two of the row that was pending


@pytest.mark.parametrize("late", [False, True])
def test_rows_that_are_cancelled_fall_silent_and_disturb_nobody(late: bool) -> None:
    many = rows(60, seed=1)
    source = random.Random(2)
    leave = {row.id: source.randint(1, 9) for row in many[1:] if source.random() < 0.4}
    desk = Desk(runner("llama", late=late), cancel=dict(leave))
    heard = desk.run(many)
    wanted = Desk(runner("llama", late=False)).run(many)
    whole = {id: one for id, one in heard.items() if one.finish is not None}
    assert len(heard) - len(whole) > 5
    assert all(id in leave for id in heard.keys() - whole.keys())
    same(whole, {id: wanted[id] for id in whole})


@pytest.mark.parametrize("late", [False, True])
def test_forgetting_at_any_time_leaves_no_trace(late: bool) -> None:
    made = runner("llama", late=late)
    made.forget(0)
    wanted = Desk(runner("llama", late=False)).run(rows(8))
    for steps in (1, 2, 5):
        desk = Desk(made, heard={row.id: Heard() for row in rows(8)})
        desk.step(tuple(rows(8)[:SLOTS]))
        for _ in range(steps - 1):
            desk.step()
        made.forget(0)
        made.forget(0)
        assert made.step(StepPlan()).pending is False
    same(Desk(made).run(rows(8)), wanted)


@pytest.mark.parametrize("late", [False, True])
def test_after_a_step_without_memory_everything_can_run_again(late: bool) -> None:
    wanted = Desk(runner("llama", late=False)).run(rows(8))
    devices: list[Device] = []

    def device(inner: Forward) -> Forward:
        devices.append(Device(inner))
        return devices[0]

    made = runner("llama", late=late, wrap=device)
    desk = Desk(made, heard={row.id: Heard() for row in rows(8)})
    desk.step(tuple(rows(8)[:SLOTS]))
    devices[0].steps = 1
    with pytest.raises(OutOfMemory):
        while True:
            desk.step()
    made.forget(0)
    devices[0].steps = None
    same(Desk(made).run(rows(8)), wanted)


def test_a_slot_that_is_taken_again_hears_nothing_of_the_row_before() -> None:
    wanted = Desk(runner("llama", late=False)).run(rows(12, seed=5))
    desk = Desk(runner("llama", late=True))
    # Every row ends with its first token, so that each step has a new row in an old slot.
    short = [
        Row(f"{n}", (30 + n,), SamplingParams(max_tokens=1, temperature=0.0)) for n in range(30)
    ]
    desk.run(short)
    assert all(one.tokens == 1 for one in desk.heard.values())
    assert sum(output.sampled for output in desk.outputs) == 30
    desk.heard.clear()
    same(desk.run(rows(12, seed=5)), wanted)


def test_a_row_uses_its_context_to_the_last_token_and_no_more() -> None:
    row = Row("a", (25,) * (CONTEXT - 3), SamplingParams(max_tokens=50, temperature=0.0))
    for late in (False, True):
        heard = Desk(runner("gpt2", late=late)).run([row])
        assert heard["a"].tokens <= 3


def test_what_is_left_out_of_a_step_takes_its_log_probabilities_along() -> None:
    tokens, no = torch.arange(5), torch.zeros(5, dtype=torch.bool)
    column = torch.tensor([0.1, 0.3, 0.4])
    found = Logprobs(
        torch.tensor([1, 3, 4]), column, column[:, None], torch.tensor([[1], [3], [4]])
    )
    left = only(Sampled(tokens, no, no, no, found), np.array([True, False, False, True, True]))
    assert left.tokens.tolist() == [0, 3, 4]
    assert left.logprobs is not None
    assert left.logprobs.rows.tolist() == [1, 2]
    assert left.logprobs.top_tokens.tolist() == [[3], [4]]
