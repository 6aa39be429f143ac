"""Which of two layouts of a weight is the faster one on this CPU. Knows neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import torch
from torch import nn

from models.native.library import library

LARGEST: Final = 1024  #: of either side of a weight that is timed; a multiple of what layouts want
#: Rows of the steps that are timed, each of a size of its own, as steps are.
STEPS: Final = range(57, 125, 9)
AGAIN: Final = (
    4  #: times that known sizes are timed, of which the best counts: others use the CPU, too
)

#: Raises RuntimeError or AttributeError for a weight that it is not made for.
LayOut = Callable[[torch.Tensor, None], nn.Module]


def gain(weight: torch.Tensor, ours: LayOut, theirs: LayOut, new_sizes: bool = True) -> float:
    """Times as fast with such a weight; 0 where one of them is not made for it. Measured once for
    a size. `new_sizes`: whether the first step of its size counts as much as all others; where it
    costs both the same, it hides all else."""
    columns, size = (min(side, LARGEST) for side in weight.shape)
    compiled = library() is not None
    return _gain(weight.dtype, columns, size, ours, theirs, new_sizes, compiled)


@cache
def _gain(
    dtype: torch.dtype,
    columns: int,
    size: int,
    ours: LayOut,
    theirs: LayOut,
    new_sizes: bool,
    compiled: bool,
) -> float:
    """`compiled`: what was measured with our library says nothing without it."""
    weight = torch.zeros(columns, size, dtype=dtype)
    try:
        layers = ours(weight, None), theirs(weight, None)
    except (RuntimeError, AttributeError):
        return 0.0
    with _one_thread():
        new = _pass(layers, size, dtype)
        known = [_pass(layers, size, dtype) for _ in range(AGAIN)]
    our, their = (
        min(one[n] for one in known) + (new[n] if new_sizes else 0.0) for n in range(len(layers))
    )
    return their / our


@contextmanager
def _one_thread() -> Iterator[None]:
    """Where others use the CPU, threads that wait for each other measure those."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _pass(layers: tuple[nn.Module, nn.Module], size: int, dtype: torch.dtype) -> list[float]:
    """Seconds that each layer takes a row at its best."""
    best = [float("inf")] * len(layers)
    for rows in STEPS:
        x = torch.zeros(1, rows, size, dtype=dtype)
        for n, layer in enumerate(layers):
            began = time.perf_counter()
            layer(x)
            best[n] = min(best[n], (time.perf_counter() - began) / rows)
    return best
