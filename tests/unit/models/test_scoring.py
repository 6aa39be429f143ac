"""Scores of labels are their exact log-likelihoods."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.choices import choice_tree
from models.runner import Purpose, Row, SamplingParams
from models.scoring import choice_scores
from tests.unit.models.tiny import Driver, model, prompts, runner

CHOICES = ((20,), (20, 21), (20, 21, 22), (30, 31), (30, 40, 41, 42), (20,))


def plainly(made: Any, prompt: tuple[int, ...], choice: tuple[int, ...]) -> float:
    """One forward for one label."""
    with torch.inference_mode():
        logits = made(torch.tensor([[*prompt, *choice]])).logits[0].double().log_softmax(-1)
    first = len(prompt) - 1
    return sum(float(logits[first + n, token]) for n, token in enumerate(choice))


def test_scores_along_a_tree_are_sums_of_log_probabilities() -> None:
    torch.manual_seed(3)
    tree = choice_tree(CHOICES)
    logits = torch.randn(1 + len(tree.tokens), 50) * 5
    expected = [
        sum(float(logits[node + 1].double().log_softmax(-1)[token]) for node, token in steps)
        for steps in tree.steps
    ]
    assert choice_scores(logits, tree) == pytest.approx(expected, abs=1e-5)
    assert choice_scores(logits.bfloat16(), tree)[0] == choice_scores(logits.bfloat16(), tree)[5]


def test_an_output_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(FloatingPointError):
        choice_scores(torch.full((1, 30), float("nan")), choice_tree([(4,), (5,)]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_the_padded_runner_scores_as_one_forward_for_each_label(family: str) -> None:
    made = model(family)
    rows = [
        Row(f"r{number}", prompt, SamplingParams(), Purpose.SCORE, CHOICES)
        for number, prompt in enumerate(prompts(5))
    ]
    written = Row("w", prompts(1)[0], SamplingParams(max_tokens=3, temperature=0))
    driver = Driver(runner(made))
    driver.run([rows[0], written, *rows[1:]])
    for row in rows:
        expected = [plainly(made, row.prompt, choice) for choice in CHOICES]
        assert driver.ended[row.id].scores == pytest.approx(expected, abs=1e-4)
        assert (driver.ended[row.id].tokens, driver.texts[row.id]) == (0, "")
    assert driver.texts["w"]
    assert set(driver.outputs[0].started) == {row.id for row in [*rows, written]}
