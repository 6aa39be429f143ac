"""Rotary positions of queries and keys in one pass, in place of the function of that name that most
models of transformers call. For what it was not made for, it calls theirs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from models.native.library import DTYPES

NAME = "apply_rotary_pos_emb"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  #: of numbers of about 1

Pair = tuple[torch.Tensor, torch.Tensor]


class _Heads(ctypes.Structure):
    """`Heads` of elementwise.cpp."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        ("token", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("heads", ctypes.c_int64),
    )


class NativeRotary:
    """Called as theirs is, with q and k [1, H, T, D], and cos and sin [1, T, D]."""

    def __init__(self, library: ctypes.CDLL, theirs: Callable[..., Pair]) -> None:
        self._rotary = library.penstock_rotary
        self._theirs = theirs

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *others: Any,
        **named: Any,
    ) -> Pair:
        if others or named or not _fits(q, k, cos, sin):
            return self._theirs(q, k, cos, sin, *others, **named)
        tokens, size = cos.shape[1:]
        out = [x.new_empty(1, tokens, x.shape[1], size) for x in (q, k)]
        heads = (_Heads * 2)(_heads(q, out[0]), _heads(k, out[1]))
        self._rotary(
            heads,
            cos.data_ptr(),
            sin.data_ptr(),
            tokens,
            size,
            q.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return out[0].transpose(1, 2), out[1].transpose(1, 2)


def _heads(x: torch.Tensor, out: torch.Tensor) -> _Heads:
    return _Heads(x.data_ptr(), out.data_ptr(), x.stride(2), x.stride(1), x.shape[1])


def _fits(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    size, dtype = q.shape[-1], q.dtype
    return (
        q.device.type == "cpu"
        and dtype in DTYPES
        and k.dtype is cos.dtype is sin.dtype is dtype
        and size % 32 == 0
        and q.shape[0] == k.shape[0] == 1
        and q.stride(3) == k.stride(3) == 1
        and cos.shape == sin.shape == (1, q.shape[2], size)
        and k.shape[2:] == q.shape[2:]
        and cos.is_contiguous()
        and sin.is_contiguous()
        and not torch.is_grad_enabled()
    )


@torch.inference_mode()
def swap(model: nn.Module, library: ctypes.CDLL) -> list[str]:
    """In the Python modules of a model's classes. Returns what it did, in words."""
    names = {type(module).__module__ for module in model.modules()}
    owners = [sys.modules[name] for name in sorted(names) if name in sys.modules]
    swapped = sum(_swap_in(owner, library) for owner in owners)
    return ["rotary positions compiled"] if swapped else []


def _swap_in(owner: ModuleType, library: ctypes.CDLL) -> bool:
    theirs = getattr(owner, NAME, None)
    if isinstance(theirs, NativeRotary):
        return True
    if theirs is None or not all(_same(library, theirs, dtype) for dtype in DTYPES):
        return False
    setattr(owner, NAME, NativeRotary(library, theirs))
    return True


def _same(library: ctypes.CDLL, theirs: Callable[..., Pair], dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = (
        torch.randn(1, 3, heads, 64, generator=generator).to(dtype).transpose(1, 2)
        for heads in (4, 2)
    )
    cos, sin = (torch.randn(1, 3, 64, generator=generator).to(dtype) for _ in range(2))
    try:
        expected = theirs(q, k, cos, sin)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    ours = NativeRotary(library, theirs)(q, k, cos, sin)
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE[dtype])
        for a, b in zip(ours, expected, strict=True)
    )
