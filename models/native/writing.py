"""Keys and values into the arena by the C++ of this folder: the places of a step's tokens are far
apart, and two threads wait for memory in half the time. Knows no model and no row."""

from __future__ import annotations

import ctypes

import torch

from models.native.library import DTYPES, library
from models.packed.store import Write, write_plain

FEW = 8  #: tokens below which torch is as fast


class _Rows(ctypes.Structure):
    """`Rows` of elementwise.cpp."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        ("source_head", ctypes.c_int64),
        ("source_token", ctypes.c_int64),
        ("to_head", ctypes.c_int64),
        ("to_position", ctypes.c_int64),
        ("size", ctypes.c_int64),
    )


def load_write() -> Write | None:
    """None where the library cannot be had; the log says why."""
    loaded = library()
    return None if loaded is None else NativeWrite(loaded)


class NativeWrite:
    """Raises IndexError for a place outside of the arena; nothing is written then."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._write = library.penstock_write

    def __call__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        where: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> None:
        fits = _fits(keys, where, key) and _fits(values, where, value)
        if len(where) < FEW or not fits:
            write_plain(keys, values, where, key, value)
            return
        both = (_Rows * 2)(_rows(key, keys), _rows(value, values))
        heads, positions = keys.shape[:2]
        if self._write(
            both,
            where.data_ptr(),
            heads,
            len(where),
            positions,
            keys.dtype is torch.bfloat16,
            torch.get_num_threads(),
        ):
            raise IndexError("a token's place is outside of the arena")


def _rows(source: torch.Tensor, to: torch.Tensor) -> _Rows:
    return _Rows(
        source.data_ptr(),
        to.data_ptr(),
        *source.stride()[:2],
        *to.stride()[:2],
        to.shape[2],
    )


def _fits(arena: torch.Tensor, where: torch.Tensor, new: torch.Tensor) -> bool:
    return (
        arena.device.type == "cpu"
        and arena.dtype is new.dtype
        and arena.dtype in DTYPES
        and arena.stride(2) == new.stride(2) == 1
        and where.dtype is torch.int64
        and where.is_contiguous()
        and new.shape == (arena.shape[0], len(where), arena.shape[2])
    )
