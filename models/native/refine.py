"""The greatest logit by rough ones, by the C++ of this folder: one pass over them, and a few
products. Knows no model."""

from __future__ import annotations

import ctypes

import torch

from models.native.library import DTYPES, library
from models.packed.head import MOST, Refine, refine


class _Rough(ctypes.Structure):
    """`Rough` of elementwise.cpp."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("margin", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("row", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("bf16", ctypes.c_int32),
    )


def load() -> Refine | None:
    """None where the library cannot be had; the log says why."""
    loaded = library()
    if loaded is None:
        return None
    find = loaded.penstock_refine

    def native(
        rough: torch.Tensor, margin: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        if not _fits(rough, margin, x, weight):
            return refine(rough, margin, x, weight)
        step = _Rough(
            rough.data_ptr(),
            margin.data_ptr(),
            x.data_ptr(),
            weight.data_ptr(),
            rough.stride(0),
            rough.shape[1],
            x.shape[1],
            x.dtype is torch.bfloat16,
        )
        out = torch.empty(len(rough), dtype=torch.int64)
        find(ctypes.byref(step), out.data_ptr(), len(rough), MOST, torch.get_num_threads())
        return out

    return native


def _fits(rough: torch.Tensor, margin: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        rough.dtype is torch.bfloat16
        and rough.stride(1) == 1
        and margin.dtype is torch.float32
        and x.dtype is weight.dtype
        and x.dtype in DTYPES
        and all(one.is_contiguous() for one in (margin, x, weight))
    )
