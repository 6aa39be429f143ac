"""What rows say adds up to what all their tokens decode to, however it is wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.answers import CAPACITY, Answers
from models.runner import FinishReason, Row, RowStep, SamplingParams
from models.sampling import Logprobs, Sampled
from tests.unit.models.test_codec import byte_tokenizer

END = 256  #: the byte tokenizer's special token
BYTES: Any = byte_tokenizer()


def sampled(tokens: list[int], ended: list[bool], logprobs: Logprobs | None = None) -> Sampled:
    none = torch.zeros(len(tokens), dtype=torch.bool)
    return Sampled(torch.tensor(tokens), torch.tensor(ended), none, none, logprobs)


def row(id: str, *, stream: bool = False, **params: Any) -> Row:
    return Row(id, (1,), SamplingParams(**params), stream=stream)


def say(one: Row, tokens: list[int]) -> list[RowStep]:
    """All that a row says of its tokens; the last ends it."""
    answers = Answers(3, BYTES, frozenset({END}))
    answers.admit(2, one, len(tokens))
    said = []
    for at, token in enumerate(tokens):
        last = at + 1 == len(tokens) or token == END
        steps, over = answers.collect(torch.tensor([2]), sampled([token], [last]))
        said += steps
        if over:
            assert (over, said[-1].finish is None) == ([2], False)
            break
    return said


def of_text(text: str) -> list[int]:
    return list(BYTES.encode(text, add_special_tokens=False))


@given(st.text(min_size=1, max_size=300), st.sampled_from([(), ("\ue000",)]))
def test_a_text_is_the_same_as_a_whole_and_as_it_comes(text: str, stop: tuple[str, ...]) -> None:
    tokens = of_text(text)
    (whole,) = say(row("r"), tokens)
    pieces = say(row("r", stream=True, stop=stop), tokens)
    assert "".join(piece.text for piece in pieces) == whole.text == text
    assert all(piece.text or piece.finish for piece in pieces)
    (held,) = say(row("r", stop=stop), tokens)
    assert held == whole == replace(pieces[-1], text=whole.text)
    assert (whole.finish, whole.tokens) == (FinishReason.LENGTH, len(tokens))


@given(st.binary(min_size=1, max_size=80))
def test_bytes_that_are_no_text_are_the_same_as_a_whole_and_as_they_come(data: bytes) -> None:
    tokens = list(data)  # those of the byte tokenizer, in another order
    (whole,) = say(row("r"), tokens)
    pieces = say(row("r", stream=True), tokens)
    assert "".join(piece.text for piece in pieces) == whole.text


def test_an_end_token_is_counted_and_not_shown() -> None:
    tokens = [*of_text("fine"), END]
    for one in (row("r"), row("r", stream=True), row("r", stop=("\n",))):
        said = say(one, tokens)
        assert "".join(step.text for step in said) == "fine"
        assert (said[-1].finish, said[-1].tokens) == (FinishReason.STOP, 5)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_a_row_at_once_and_is_hidden(stream: bool) -> None:
    said = say(row("r", stream=stream, stop=("END", "never")), of_text("the END of it"))
    assert "".join(step.text for step in said) == "the "
    assert (said[-1].finish, said[-1].tokens) == (FinishReason.STOP, 7)
    assert len(said) == (5 if stream else 1)


def test_many_rows_are_told_apart_and_long_answers_have_room() -> None:
    answers = Answers(4, BYTES, frozenset({END}))
    letters = {0: "a", 1: "b", 3: "c"}
    for slot in letters:
        answers.admit(slot, row(f"r{slot}", stream=slot == 1), 1_000)
    length = 5 * CAPACITY + 3
    for at in range(length):
        order = np.roll([0, 1, 3], at)
        tokens = [of_text(letters[slot])[0] for slot in order.tolist()]
        last = at + 1 == length
        steps, over = answers.collect(torch.from_numpy(order), sampled(tokens, [last] * 3))
        assert last or [(step.id, step.text) for step in steps] == [("r1", "b")]
    assert {step.id: step.text for step in steps if step.id != "r1"} == {
        "r0": "a" * length,
        "r3": "c" * length,
    }
    assert sorted(over) == [0, 1, 3]


def test_slots_without_a_row_say_nothing_and_a_new_row_begins_anew() -> None:
    answers = Answers(2, BYTES, frozenset())
    answers.admit(0, row("gone"), 9)
    answers.collect(torch.tensor([0]), sampled(of_text("x"), [False]))
    answers.release([0, 0])
    assert answers.collect(torch.tensor([0, 1]), sampled([1, 1], [True, True])) == ([], [])
    answers.admit(0, row("new"), 9)
    steps, _ = answers.collect(torch.tensor([0]), sampled(of_text("y"), [True]))
    assert steps == [RowStep("new", "y", FinishReason.LENGTH, 1)]


def test_logprobs_come_with_the_end_as_many_as_each_row_asked_for() -> None:
    answers = Answers(2, BYTES, frozenset({END}))
    answers.admit(0, row("two", logprobs=2), 9)
    answers.admit(1, row("none", logprobs=0), 9)
    a, b = of_text("ab")
    rows = torch.tensor([0, 1])
    chosen, top = torch.tensor([-0.5, -0.25]), torch.tensor([[-0.25, -0.5, -3.0]] * 2)
    found = Logprobs(rows, chosen, top, torch.tensor([[b, a, END]] * 2))
    answers.collect(rows, sampled([a, b], [False, False], found))
    steps, _ = answers.collect(rows, sampled([END, END], [True, True], found))
    first, second = steps
    assert [(one.token, one.logprob, one.top) for one in first.logprobs] == [
        ("a", -0.5, (("b", -0.25), ("a", -0.5)))
    ]
    assert [(one.token, one.logprob, one.top) for one in second.logprobs] == [("b", -0.25, ())]


def test_an_output_that_is_not_a_number_is_an_error() -> None:
    answers = Answers(1, BYTES, frozenset())
    answers.admit(0, row("r"), 9)
    broken = replace(sampled([0], [False]), broken=torch.tensor([True]))
    with pytest.raises(FloatingPointError):
        answers.collect(torch.tensor([0]), broken)
