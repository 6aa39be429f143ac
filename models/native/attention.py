"""Attention over the arena by the C++ of this folder, on the CPU. Knows no model and no row."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import torch

from models.native.library import DTYPES, library
from models.packed import torch_attention
from models.packed.attention import Attend
from models.packed.layout import Ints, Layout

NOTE = "native_attention"
BEHIND = "the layout reads behind the arena"


class _Layout(ctypes.Structure):
    """`Layout` of plan.h."""

    _fields_ = (
        ("tokens", ctypes.c_int),
        ("blocks", ctypes.c_int),
        ("block", ctypes.c_void_p),
        ("prefix_start", ctypes.c_void_p),
        ("prefix_length", ctypes.c_void_p),
        ("own_start", ctypes.c_void_p),
        ("visible", ctypes.c_void_p),
        ("place", ctypes.c_void_p),
        ("extra_start", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
    )


class Call(ctypes.Structure):
    """`Call` of worker.h."""

    _fields_ = (
        ("query", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("query_head", ctypes.c_int64),
        ("query_token", ctypes.c_int64),
        ("key_head", ctypes.c_int64),
        ("key_position", ctypes.c_int64),
        ("value_head", ctypes.c_int64),
        ("value_position", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("key_size", ctypes.c_int32),
        ("value_size", ctypes.c_int32),
        ("bf16", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("scaling", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


def load() -> Attend | None:
    """None where the library cannot be had; the log says why."""
    loaded = library()
    return None if loaded is None else NativeAttention(loaded)


@dataclass(slots=True)
class _Plan:
    """A step's tasks, for all layers that have these heads. Frees what C++ holds."""

    library: ctypes.CDLL
    handle: int
    heads: tuple[int, int]
    arrays: tuple[Ints, ...]  # which C++ reads

    def __del__(self) -> None:
        self.library.penstock_free_plan(self.handle)


class NativeAttention:
    """See `models.packed.attention.Attend`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __call__(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: Layout,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Raises ValueError for tensors that are not as agreed. Half precision is torch's part."""
        if query.dtype not in DTYPES:
            return torch_attention.attend(
                query, keys, values, layout, scaling=scaling, window=window, softcap=softcap
            )
        _check(query, keys, values)
        if query.stride(2) != 1:
            query = query.contiguous()
        heads, tokens = query.shape[:2]
        out = query.new_empty(tokens, heads, values.shape[2])
        plan, call = self.prepare(
            heads, keys, values, layout, scaling=scaling, window=window, softcap=softcap
        )
        call.query, call.out = query.data_ptr(), out.data_ptr()
        call.query_head, call.query_token = query.stride()[:2]
        if self._library.penstock_attend(plan, ctypes.byref(call)):
            raise ValueError(BEHIND)
        return out

    def prepare(
        self,
        heads: int,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: Layout,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> tuple[int, Call]:
        """A step's plan, which lives as long as its layout, and a call of so many query heads
        without its queries and what they see."""
        positions, value_size = values.shape[1:]
        call = Call(
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            key_head=keys.stride(0),
            key_position=keys.stride(1),
            value_head=values.stride(0),
            value_position=values.stride(1),
            positions=positions,
            key_size=keys.shape[2],
            value_size=value_size,
            bf16=keys.dtype is torch.bfloat16,
            window=window or 0,
            scaling=scaling,
            softcap=softcap or 0.0,
        )
        return self._plan(layout, (heads, len(keys))).handle, call

    def _plan(self, layout: Layout, heads: tuple[int, int]) -> _Plan:
        """A step's tasks: made for its first layer, and again for layers with other heads."""
        plan = layout.notes.get(NOTE)
        if isinstance(plan, _Plan) and plan.heads == heads:
            return plan
        arrays = tuple(
            np.ascontiguousarray(array, dtype=np.int32)
            for array in (
                layout.blocks,
                layout.prefix_start,
                layout.prefix_length,
                layout.own_start,
                layout.visible,
                layout.places,
                layout.extra_start,
                layout.extra,
            )
        )
        sizes = (len(layout.visible), len(layout.blocks) - 1)
        made = _Layout(*sizes, *(array.ctypes.data for array in arrays))
        handle = self._library.penstock_plan(
            ctypes.byref(made), heads[1], heads[0] // heads[1], torch.get_num_threads()
        )
        plan = layout.notes[NOTE] = _Plan(self._library, handle, heads, arrays)
        return plan


def _check(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
    if not query.dtype == keys.dtype == values.dtype:
        raise ValueError("queries, keys and values have to be of one type")
    if keys.stride(2) != 1 or values.stride(2) != 1:
        raise ValueError("a key's numbers, and a value's, have to lie side by side")
    if keys.shape[:2] != values.shape[:2] or keys.shape[2] != query.shape[2]:
        raise ValueError("keys are not of the queries' or the values' shape")
    if not len(keys) or len(query) % len(keys):
        raise ValueError("there have to be as many query heads to each key head")
