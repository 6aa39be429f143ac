"""Keys and values land where torch would put them."""

from __future__ import annotations

import ctypes

import pytest
import torch

from models.native.writing import FEW, NativeWrite, load_write

POSITIONS = 500


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, FEW, 70, 300])
def test_tokens_land_at_their_places_and_nowhere_else(
    native: ctypes.CDLL, dtype: torch.dtype, tokens: int
) -> None:
    torch.manual_seed(0)
    arenas = [torch.randn(3, POSITIONS, size).to(dtype) for size in (64, 40)]
    new = [torch.randn(tokens, 3, size).to(dtype).transpose(0, 1) for size in (64, 40)]
    where = torch.randperm(POSITIONS)[:tokens]
    expected = [a.index_copy(1, where, n) for a, n in zip(arenas, new, strict=True)]
    write = load_write()
    assert write is not None
    write(arenas[0], arenas[1], where, new[0], new[1])
    assert all(torch.equal(a, e) for a, e in zip(arenas, expected, strict=True))


@pytest.mark.parametrize("place", [-1, POSITIONS])
def test_a_place_outside_of_the_arena_is_refused(native: ctypes.CDLL, place: int) -> None:
    arena, new = torch.zeros(2, POSITIONS, 16), torch.ones(2, FEW, 16)
    where = torch.tensor([*range(FEW - 1), place])
    with pytest.raises(IndexError, match="outside"):
        NativeWrite(native)(arena, arena.clone(), where, new, new)
    assert not arena.any()
