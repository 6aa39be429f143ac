"""What the engine says, as it is stored."""

from __future__ import annotations

import json
import math

import pytest

from batching.requests import Completion, EngineOutcome
from models.runner import FinishReason, TokenLogprob
from penstock.errors import PromptError
from workers.outcomes import LOWEST, as_outcome, softmax, with_dropped

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


def detail_of(outcome: EngineOutcome, labels: tuple[str, ...] = ()) -> dict[str, object]:
    found = as_outcome(0, outcome, labels).detail
    assert found is not None
    return dict(json.loads(found))


def test_one_answer_is_its_text_and_nothing_beside_it() -> None:
    told = EngineOutcome("1", "hi", STOP, 5, 2, completions=(Completion("hi", STOP, 2),))

    outcome = as_outcome(3, told)

    assert (outcome.position, outcome.text, outcome.finish_reason) == (3, "hi", "stop")
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (5, 2)
    assert (outcome.error_code, outcome.detail) == (None, None)


def test_an_error_has_a_code_and_no_text() -> None:
    told = EngineOutcome("1", "half", FinishReason.ERROR, 5, 2, PromptError.ENGINE, "It raised.")

    outcome = as_outcome(0, told, ("a", "b"))

    assert (outcome.text, outcome.finish_reason, outcome.detail) == (None, None, None)
    assert (outcome.error_code, outcome.error_message) == ("engine_error", "It raised.")


def test_a_scored_prompt_is_answered_by_the_likeliest_label() -> None:
    scores = (-4.0, -1.0, -2.5)
    told = EngineOutcome("1", "", STOP, 5, 0, scores=scores)

    detail = detail_of(told, ("a", "b", "c"))

    assert as_outcome(0, told, ("a", "b", "c")).text == "b"
    assert detail["scores"] == dict(zip("abc", scores, strict=True))
    probabilities = detail["probabilities"]
    assert isinstance(probabilities, dict)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert probabilities["b"] / probabilities["a"] == pytest.approx(math.exp(3))


def test_by_the_mean_of_its_tokens_a_long_label_has_no_handicap() -> None:
    choices = ((1,), (1, 2, 3, 4))
    told = EngineOutcome("1", "", STOP, 5, 0, scores=(-2.0, -4.0), choices=choices)

    mean = as_outcome(0, told, ("short", "long"), length_normalized=True)

    assert as_outcome(0, told, ("short", "long")).text == "short"
    assert (mean.text, mean.detail is not None) == ("long", True)
    detail = json.loads(mean.detail or "")
    assert detail["scores"] == {"short": -2.0, "long": -1.0}
    assert detail["probabilities"]["long"] / detail["probabilities"]["short"] == pytest.approx(
        math.exp(1)
    )


def test_probabilities_of_what_is_very_unlikely_still_sum_to_one() -> None:
    assert softmax([-5_000.0, -5_001.0]) == pytest.approx([0.7310585, 0.2689414])
    assert softmax([-math.inf, -3.0]) == [0.0, 1.0]
    assert softmax([-math.inf, -math.inf]) == [0.5, 0.5]


def test_several_answers_are_all_told_and_the_first_is_the_text() -> None:
    completions = (Completion("x", STOP, 1), Completion("y\0", LENGTH, 2))
    told = EngineOutcome("1", "x", STOP, 5, 3, completions=completions)

    assert as_outcome(0, told).text == "x"
    assert detail_of(told)["completions"] == [
        {"text": "x", "finish_reason": "stop", "tokens": 1},
        {"text": "y\ufffd", "finish_reason": "length", "tokens": 2},
    ]


def test_log_probabilities_have_openais_shape_and_no_infinity() -> None:
    tokens = (
        TokenLogprob("a", -0.25, (("a", -0.25), ("b", -math.inf))),
        TokenLogprob("c", -math.inf),
    )
    shown = [
        {
            "token": "a",
            "logprob": -0.25,
            "top_logprobs": [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": LOWEST}],
        },
        {"token": "c", "logprob": LOWEST, "top_logprobs": []},
    ]
    one = Completion("ac", STOP, 2, tokens)

    single = EngineOutcome("1", "ac", STOP, 5, 2, completions=(one,))
    double = EngineOutcome("1", "ac", STOP, 5, 4, completions=(one, one))

    assert detail_of(single) == {"logprobs": shown}
    listed = detail_of(double)["completions"]
    assert isinstance(listed, list)
    assert [completion["logprobs"] for completion in listed] == [shown, shown]


def test_turns_that_were_dropped_are_told_beside_whatever_else_there_is() -> None:
    drawn = (Completion("hi", STOP, 2, (TokenLogprob("hi", -0.5),)),)
    told = as_outcome(0, EngineOutcome("1", "hi", STOP, 5, 2, completions=drawn))

    dropped = with_dropped(told, 3).detail

    assert dropped is not None and told.detail is not None
    assert json.loads(dropped) == {**json.loads(told.detail), "dropped_turns": 3}
    assert with_dropped(told, 0) == told


def test_what_was_dropped_of_an_equal_prompt_is_not_told_of_this_one() -> None:
    plain = as_outcome(0, EngineOutcome("1", "hi", STOP, 5, 2))

    assert plain.detail is None
    assert with_dropped(with_dropped(plain, 3), 0) == plain
