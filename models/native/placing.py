"""What becomes of a layer's queries, keys and values before attention, in one pass: queries turn
where they are, keys turn on their way into the arena, and values go there. Knows no model."""

from __future__ import annotations

import ctypes

import torch

from models.native.library import DTYPES


class Tokens(ctypes.Structure):
    """`Tokens` of tokens.h."""

    _fields_ = (
        ("both", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("where", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("query_heads", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("key_head", ctypes.c_int64),
        ("key_position", ctypes.c_int64),
        ("value_head", ctypes.c_int64),
        ("value_position", ctypes.c_int64),
    )


OUTSIDE = "a token's place is outside of the arena"


class NativePlacing:
    """Raises IndexError for a place outside of the arena; nothing is written then."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._place = library.penstock_place

    def __call__(
        self,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        where: torch.Tensor,
    ) -> torch.Tensor | None:
        """Queries [H, T, D] of `qkv` [1, T, (H + 2 H_kv) D], whose memory they keep; `cos` and
        `sin` [1, T, D], `keys` and `values` [H_kv, P, D], `where` [T]. None, and nothing was done,
        for what this was not made for."""
        where_they_go = (cos, sin, keys, values, where)
        if not (qkv.is_contiguous() and fits(qkv, *where_they_go)):
            return None
        heads, _, size = keys.shape
        tokens, query_heads = len(where), qkv.shape[2] // size - 2 * heads
        step = tokens_of(query_heads, *where_they_go)
        step.both = qkv.data_ptr()
        bf16 = qkv.dtype is torch.bfloat16
        if self._place(ctypes.byref(step), bf16, torch.get_num_threads()):
            raise IndexError(OUTSIDE)
        return qkv.view(tokens, -1, size)[:, :query_heads].transpose(0, 1)


def tokens_of(
    query_heads: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    where: torch.Tensor,
) -> Tokens:
    """A step's tokens, without what they are made of."""
    heads, positions, size = keys.shape
    return Tokens(
        None,
        cos.data_ptr(),
        sin.data_ptr(),
        where.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        len(where),
        query_heads,
        heads,
        size,
        positions,
        *keys.stride()[:2],
        *values.stride()[:2],
    )


def fits(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    where: torch.Tensor,
) -> bool:
    """Whether it is made for them; x: [1, T, whatever]."""
    size, dtype = keys.shape[2], x.dtype
    return (
        x.device.type == "cpu"
        and dtype in DTYPES
        and dtype is cos.dtype is sin.dtype is keys.dtype is values.dtype
        and size % 32 == 0
        and cos.shape == sin.shape == (1, len(where), size)
        and x.shape[:2] == cos.shape[:2]
        and values.shape == keys.shape
        and keys.stride(2) == values.stride(2) == 1
        and where.dtype is torch.int64
        and cos.is_contiguous()
        and sin.is_contiguous()
        and where.is_contiguous()
        and not torch.is_grad_enabled()
    )
