"""Scores of the batched engine are those of single forwards; and how rounds are put together."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from batching.engine import Engine
from batching.requests import EngineConfig, EngineRequest
from benchmarks.ours import Collector
from benchmarks.protocol import Answer
from benchmarks.rounds import Sample
from benchmarks.scoring import EACH, MASK, SCORE, Spread, finding
from models.loader import LoadOptions, load
from models.runner import SamplingParams
from workers.outcomes import as_outcome

TINY = Path(__file__).parents[3] / "assets" / "penstock-tiny"
LABELS = ("file", "file system", "network", "numbers and math", "text", "dates and times")
WORDS = ("open", "read", "a", "socket", "parse", "float", "the", "path", "of", "list", "date")
ROWS = 12


def by_itself(model: Any, prompt: tuple[int, ...], choice: tuple[int, ...]) -> float:
    """One forward for one label of one row."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *choice]])).logits[0].double().log_softmax(-1)
    first = len(prompt) - 1
    return sum(float(logits[first + n, token]) for n, token in enumerate(choice))


def test_batched_scores_are_those_of_single_forwards_and_probabilities_sum_to_one() -> None:
    draw = random.Random(23)
    runner = load(LoadOptions(str(TINY), quantization="fp32", device="cpu", max_rows=8))
    codec = runner.codec
    choices = tuple(codec.encode_answer(label) for label in LABELS)
    texts = [" ".join(draw.choices(WORDS, k=draw.randrange(1, 30))) for _ in range(ROWS)]
    asked = [codec.encode_chat([("system", "Which topic?"), ("user", text)]) for text in texts]
    engine, collector = Engine(runner, EngineConfig(max_rows=8)), Collector(ROWS)
    engine.start()
    try:
        for number, prompt in enumerate(asked):
            engine.submit(
                EngineRequest(
                    str(number), "bulk", prompt, SamplingParams(), choices=choices, group="all"
                ),
                collector,
            )
        outcomes = {int(one.id): one for one in collector.wait()}
        steps = engine.stats().steps
    finally:
        engine.stop()

    loaded: Any = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    model = loaded.eval()
    assert steps < ROWS  # they ran together
    for number, prompt in enumerate(asked):
        expected = {
            label: by_itself(model, prompt, choice)
            for label, choice in zip(LABELS, choices, strict=True)
        }
        stored = as_outcome(0, outcomes[number], LABELS)
        told = json.loads(stored.detail or "")
        assert told["scores"] == pytest.approx(expected, abs=1e-4)
        assert stored.text == max(expected, key=expected.__getitem__)
        assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_ratios_are_of_the_same_round_and_labels_of_the_same_row() -> None:
    def sample(who: str, number: int, seconds: float, picks: tuple[int, ...] = ()) -> Sample:
        return Sample("m", "float32", "shape", who, number, Answer(seconds, 4, 0, {}, picks))

    samples = [
        sample(SCORE, 1, 4.0, (3, 3, 3, 3)),
        sample(SCORE, 0, 2.0, (0, 1, 2, 3)),
        sample(MASK, 0, 1.0),
        sample(MASK, 1, 4.0),
        sample(EACH, 0, 20.0, (0, 1)),
        sample(EACH, 1, 40.0, (2, 0)),
    ]

    found = finding("shape", samples)

    assert found.rates[SCORE] == Spread(1.0, 1.5, 2.0)
    assert found.by_mask == Spread(0.5, 0.75, 1.0)
    assert found.by_each == Spread(10.0, 10.0, 10.0)
    assert (found.compared, found.agreed) == (4, 0.75)
