"""The greatest of each row, as torch finds it."""

from __future__ import annotations

import ctypes

import pytest
import torch

from models.native import greatest

INFINITY = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 5, 512, 1024, 1500, 32_000])
def test_it_is_the_first_of_the_greatest(
    native: ctypes.CDLL, dtype: torch.dtype, size: int
) -> None:
    find = greatest.load()
    assert find is not None
    torch.manual_seed(size)
    logits = torch.randn(40, size).to(dtype)
    logits[0, size - 1] = logits[1, 0] = 9
    logits[2] = -INFINITY
    logits[3, size // 2] = INFINITY
    logits[4, : size - 1] = -INFINITY
    logits[5] = 1
    expected = torch.tensor([row.tolist().index(row.max().item()) for row in logits])
    if dtype is torch.float16:  # torch's part, which may find another of equals
        assert torch.equal(logits.gather(1, find(logits)[:, None])[:, 0], logits.amax(dim=1))
    else:
        assert torch.equal(find(logits), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at", [0, 700, 1023, 1024])
def test_a_number_that_is_none_comes_first(
    native: ctypes.CDLL, dtype: torch.dtype, at: int
) -> None:
    find = greatest.load()
    assert find is not None
    logits = torch.randn(3, 1025).to(dtype)
    logits[1, at], logits[1, 3] = torch.nan, INFINITY
    assert find(logits)[1] == at


def test_rows_may_lie_apart(native: ctypes.CDLL) -> None:
    find = greatest.load()
    assert find is not None
    logits = torch.randn(8, 2000)
    assert torch.equal(find(logits[::2, :1500]), logits[::2, :1500].argmax(dim=1))
    assert torch.equal(find(logits.t()), logits.t().argmax(dim=1))
    assert find(logits[:0]).shape == (0,)
