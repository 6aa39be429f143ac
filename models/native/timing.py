"""Which of two layouts of a weight is the faster one on this CPU. Knows neither."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import nn

from models.native.library import library

LARGEST: Final = 1024  #: of either side of a weight that is timed; a multiple of what layouts want
#: Rows of the steps that are timed, each of a size of its own, as steps are.
STEPS: Final = range(57, 125, 9)

#: Raises RuntimeError or AttributeError for a weight that it is not made for.
LayOut = Callable[[torch.Tensor, None], nn.Module]


def gain(weight: torch.Tensor, ours: LayOut, theirs: LayOut, rehearsals: int = 0) -> float:
    """Times as fast with such a weight; 0 where one of them is not made for it. Measured once for
    a size. `rehearsals`: passes that do not count, 1 where a new size costs both of them the same:
    it hides all else."""
    columns, size = (min(side, LARGEST) for side in weight.shape)
    compiled = library() is not None
    return _gain(weight.dtype, columns, size, ours, theirs, rehearsals, compiled)


@cache
def _gain(
    dtype: torch.dtype,
    columns: int,
    size: int,
    ours: LayOut,
    theirs: LayOut,
    rehearsals: int,
    compiled: bool,
) -> float:
    """`compiled`: what was measured with our library says nothing without it."""
    weight = torch.zeros(columns, size, dtype=dtype)
    try:
        layers = ours(weight, None), theirs(weight, None)
    except (RuntimeError, AttributeError):
        return 0.0
    spent = [0.0, 0.0]
    for count in range(rehearsals + 2):  # new sizes first, then known ones: a job has both
        best = [float("inf")] * 2
        for rows in STEPS:
            x = torch.zeros(1, rows, size, dtype=dtype)
            for n, layer in enumerate(layers):
                began = time.perf_counter()
                layer(x)
                best[n] = min(best[n], (time.perf_counter() - began) / rows)
        if count >= rehearsals:
            spent = [total + seconds for total, seconds in zip(spent, best, strict=True)]
    return spent[1] / spent[0]
