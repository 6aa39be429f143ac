"""The temperature that makes gold answers likeliest (Guo et al. 2017). Knows logits alone.

The loss is convex in 1/temperature, so that one minimum is found and it is the only one. One row of
all is thought to have the runner-up as its gold answer (as Platt 1999 does), so that few rows that
are all right do not make certainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The logits of all possible answers, and which of them is gold.
Case = tuple[Sequence[float], int]

LOWEST, HIGHEST = 0.05, 20.0  # of temperatures; beyond, gold rows say nothing but "more"
PRECISE = 1e-4
STEPS = 60


def best_temperature(cases: Sequence[Case]) -> float:
    """By Newton's method on 1/temperature, kept inside a bracket that shrinks."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    beta = 1.0
    targets = _targets(cases)
    for _ in range(STEPS):
        slope, bend = _slope(cases, targets, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / bend if bend > 0 else beta
        after = step if low < step < high else (low + high) / 2
        if abs(after - beta) <= PRECISE * beta:
            return 1 / after
        beta = after
    return 1 / beta


def loss(cases: Sequence[Case], temperature: float) -> float:
    """The sum of the gold answers' negative log-probabilities."""
    total = 0.0
    for logits, gold in cases:
        top = max(logits)
        parts = sum(math.exp((logit - top) / temperature) for logit in logits)
        total += math.log(parts) - (logits[gold] - top) / temperature
    return total


def _targets(cases: Sequence[Case]) -> list[float]:
    """The logit that each case should have in the mean."""
    doubt = 1 / (len(cases) + 2)
    return [
        (1 - doubt) * logits[gold]
        + doubt * max(logit for place, logit in enumerate(logits) if place != gold)
        for logits, gold in cases
    ]


def _slope(cases: Sequence[Case], targets: Sequence[float], beta: float) -> tuple[float, float]:
    """First and second derivative of the loss by 1/temperature: mean and variance of the logits,
    less the target."""
    slope = bend = 0.0
    for (logits, _), target in zip(cases, targets, strict=True):
        top = max(logits)
        weights = [math.exp(beta * (logit - top)) for logit in logits]
        total = sum(weights)
        mean = sum(w * (z - top) for w, z in zip(weights, logits, strict=True)) / total
        square = sum(w * (z - top) ** 2 for w, z in zip(weights, logits, strict=True)) / total
        slope += mean - (target - top)
        bend += square - mean * mean
    return slope, bend
