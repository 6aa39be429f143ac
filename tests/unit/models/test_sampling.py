"""Sampled tokens follow the exact distribution that the parameters ask for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from models.runner import Row, SamplingParams
from models.sampling import Sampler

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -1.5, 0.5, -4.0]
DRAWS = 4_000


def exact(params: SamplingParams) -> list[float]:
    """By the definitions, one token at a time: temperature, top-k, top-p, min-p."""
    weights = [math.exp(logit / params.temperature) for logit in LOGITS]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    kept = order[: params.top_k or None]
    mass, nucleus = sum(weights[token] for token in kept), []
    for token in kept:
        nucleus.append(token)
        if sum(weights[t] for t in nucleus) >= params.top_p * mass:
            break
    kept = [token for token in nucleus if weights[token] >= params.min_p * max(weights)]
    # Tokens that tie with the last one kept are kept.
    kept = [token for token in order if weights[token] >= min(weights[t] for t in kept) - 1e-12]
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(weights))]


def draw(params: SamplingParams, repeat: int = 1) -> Counter[int]:
    rows = [
        Row(f"r{number}", (1,), replace(params, seed=number)) for number in range(DRAWS // repeat)
    ]
    sampler = Sampler(rows, len(LOGITS), torch.device("cpu"))
    logits = torch.tensor([LOGITS] * len(rows))
    return Counter(token for _ in range(repeat) for token in sampler.choose(logits))


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, top_p=1.0),
        SamplingParams(temperature=0.5, top_p=1.0),
        SamplingParams(temperature=1.0, top_p=0.7),
        SamplingParams(temperature=1.0, top_p=1.0, top_k=2),
        SamplingParams(temperature=1.3, top_p=1.0, top_k=3),
        SamplingParams(temperature=1.0, top_p=1.0, min_p=0.2),
        SamplingParams(temperature=1.7, top_p=0.8, top_k=5, min_p=0.1),
        SamplingParams(temperature=1.0, top_p=0.01),
        SamplingParams(temperature=1.0, top_p=1.0, top_k=1_000),
    ],
)
@pytest.mark.parametrize("repeat", [1, 40])
def test_frequencies_are_those_of_the_exact_distribution(
    params: SamplingParams, repeat: int
) -> None:
    counts, expected = draw(params, repeat), exact(params)
    for token, probability in enumerate(expected):
        if probability == 0:
            assert counts[token] == 0
        else:
            spread = 5 * math.sqrt(DRAWS * probability * (1 - probability))
            assert abs(counts[token] - DRAWS * probability) <= spread + 1e-9


def test_a_flat_vocabulary_wider_than_what_is_ranked_first_is_cut_rightly() -> None:
    params = [SamplingParams(temperature=1.0, top_p=0.5, seed=3), SamplingParams(top_k=1)]
    rows = [Row(f"r{number}", (1,), param) for number, param in enumerate(params)]
    logits = torch.stack([torch.linspace(0, 1e-3, 5_000), torch.linspace(9, 0, 5_000)])
    sampler = Sampler(rows, 5_000, torch.device("cpu"))
    drawn = [sampler.choose(logits) for _ in range(500)]
    flat = [token for token, _ in drawn]
    assert min(flat) >= 2_490
    assert min(flat) < 2_600
    assert max(flat) > 4_900
    assert {token for _, token in drawn} == {0}


def test_rows_keep_their_own_parameters_when_others_leave() -> None:
    params = [
        SamplingParams(temperature=0, repetition_penalty=1e6),
        SamplingParams(temperature=1.0, top_k=1),
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.9, top_p=1.0, seed=1),
    ]
    rows = [Row(f"r{number}", (7,), param) for number, param in enumerate(params)]
    sampler = Sampler(rows, len(LOGITS), torch.device("cpu"))
    logits = torch.tensor([LOGITS] * 4)
    assert sampler.choose(logits)[:3] == [0, 0, 0]
    sampler.keep([0, 2])
    assert sampler.choose(logits[:2]) == [1, 0]
    assert sampler.choose(logits[:2]) == [2, 0]


def test_a_temperature_near_zero_is_greedy_and_not_an_overflow() -> None:
    rows = [Row("r", (1,), SamplingParams(temperature=1e-30, top_p=1.0))]
    sampler = Sampler(rows, len(LOGITS), torch.device("cpu"))
    assert sampler.choose(torch.tensor([LOGITS])) == [0]
