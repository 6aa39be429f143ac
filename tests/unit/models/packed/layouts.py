"""Steps of rows as a scheduler could ask for them, laid out."""

from __future__ import annotations

import random

import torch

from models.packed.layout import Layout
from models.packed.rows import Rows
from models.runner import Chunk, Place, Purpose, Region, Row, SamplingParams, StepPlan

ARENA = 600
PREFIXES = (Region(0, 17), Region(17, 5))
LABELS = ((20, 21, 22, 23), (20, 21, 24), (30,), (31, 32))


def steps(seed: int, scored: bool = True) -> list[Layout]:
    """Steps of rows in regions that are out of order: chunks, decode rows, two shared beginnings,
    branches."""
    source = random.Random(seed)
    rows, last = Rows(16), torch.zeros(16, dtype=torch.int64)
    regions = [Region(22 + 60 * number, 60) for number in range(9)]
    source.shuffle(regions)
    left: dict[str, int] = {}
    layouts = []
    for number in range(9):
        prefix = source.choice((None, *PREFIXES))
        known = prefix.length if prefix else 0
        length = known + source.randint(1, 30)
        score = scored and number % 4 == 3
        purpose = Purpose.SCORE if score else Purpose.GENERATE
        choices = LABELS if score else ()
        row = Row(f"r{number}", (5,) * length, SamplingParams(), purpose, choices)
        rows.admit(row, Place(regions[number], prefix))
        left[row.id] = length - known
        layouts.append(_step(rows, left, 20, last))
    while any(left.values()):
        layouts.append(_step(rows, left, 20, last))
    return [*layouts, _step(rows, left, 20, last)]


def _step(rows: Rows, left: dict[str, int], budget: int, last: torch.Tensor) -> Layout:
    chunks = []
    for id, tokens in left.items():
        take = min(tokens, budget)
        if take:
            chunks.append(Chunk(id, take))
            left[id] -= take
            budget -= take
    return rows.step(StepPlan(chunks=tuple(chunks)), last).layout
