"""Queries turn, keys turn and land with the values where separate passes would put them."""

from __future__ import annotations

import ctypes

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from models.native.placing import NativePlacing

POSITIONS, HEADS, KV_HEADS, SIZE = 400, 6, 2, 64

Tensors = dict[str, torch.Tensor]


def step(tokens: int, dtype: torch.dtype = torch.float32) -> Tensors:
    torch.manual_seed(tokens)
    made = {
        "qkv": torch.randn(1, tokens, (HEADS + 2 * KV_HEADS) * SIZE),
        "cos": torch.randn(1, tokens, SIZE),
        "sin": torch.randn(1, tokens, SIZE),
        "keys": torch.randn(KV_HEADS, POSITIONS, SIZE),
        "values": torch.randn(KV_HEADS, POSITIONS, SIZE),
    }
    where = torch.randperm(POSITIONS)[:tokens]
    return {name: tensor.to(dtype) for name, tensor in made.items()} | {"where": where}


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_one_pass_does_what_turning_and_writing_do(
    native: ctypes.CDLL, dtype: torch.dtype, tokens: int
) -> None:
    given = step(tokens, dtype)
    one = {name: tensor.float() for name, tensor in given.items() if name != "where"}
    heads = one["qkv"].view(1, tokens, -1, SIZE).transpose(1, 2)
    query, key, value = torch.split(heads, [HEADS, KV_HEADS, KV_HEADS], dim=1)
    query, key = apply_rotary_pos_emb(query, key, one["cos"], one["sin"])
    keys = one["keys"].index_copy(1, given["where"], key[0])
    values = one["values"].index_copy(1, given["where"], value[0])
    found = NativePlacing(native)(**given)
    assert found is not None
    near = 1e-2 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.float(), query[0], rtol=near, atol=near)
    torch.testing.assert_close(given["keys"].float(), keys, rtol=near, atol=near)
    assert torch.equal(given["values"].float(), values)


@torch.inference_mode()
@pytest.mark.parametrize("place", [-1, POSITIONS])
def test_a_place_outside_of_the_arena_is_refused(native: ctypes.CDLL, place: int) -> None:
    given = step(9)
    given["where"][4] = place
    before = {name: tensor.clone() for name, tensor in given.items()}
    with pytest.raises(IndexError, match="outside"):
        NativePlacing(native)(**given)
    assert all(torch.equal(given[name], tensor) for name, tensor in before.items())


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cos", torch.zeros(1, 9, SIZE // 2)),
        ("sin", torch.zeros(1, 9, SIZE, dtype=torch.float64)),
        ("values", torch.zeros(KV_HEADS, POSITIONS, SIZE + 32)),
        ("keys", torch.zeros(KV_HEADS, POSITIONS, SIZE).half()),
        ("where", torch.zeros(9, dtype=torch.int32)),
    ],
    ids=["part of a head turns", "positions in double", "longer values", "half", "32-bit places"],
)
def test_what_it_is_not_made_for_is_left_to_others(
    native: ctypes.CDLL, name: str, other: torch.Tensor
) -> None:
    given = step(9)
    before = given["qkv"].clone()
    assert NativePlacing(native)(**{**given, name: other}) is None
    assert torch.equal(given["qkv"], before)
