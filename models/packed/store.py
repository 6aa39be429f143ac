"""The key/value arena: for each layer keys and values of a fixed number of token positions.

Rows own contiguous regions of positions, which the caller hands out. Knows no row.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from models.runner import Region


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Of one attention layer: key/value heads, and the size of a key and of a value."""

    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        return self.heads * (self.key_size + self.value_size) * self.dtype.itemsize


#: Of keys and values [H_kv, P, D], places [T], and what to write there [H_kv, T, D].
Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]


def write_plain(
    keys: torch.Tensor,
    values: torch.Tensor,
    where: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
) -> None:
    """In plain torch, on any device."""
    keys.index_copy_(1, where, key)
    values.index_copy_(1, where, value)


class Store:
    """`keys[layer]` is [H_kv, P, D]: a head's keys of one row lie side by side. Memory is taken
    from the system only as positions are first written."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        positions: int,
        device: torch.device,
        write: Write = write_plain,
    ) -> None:
        self._write = write
        self.positions = positions
        empty = _empty_on_cpu if device.type == "cpu" else partial(torch.empty, device=device)
        self.keys = [empty((s.heads, positions, s.key_size), dtype=s.dtype) for s in layers]
        self.values = [empty((s.heads, positions, s.value_size), dtype=s.dtype) for s in layers]

    def write(
        self, layer: int, where: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Store the keys and values [H_kv, T, D] of T tokens at `where` [T]."""
        self._write(self.keys[layer], self.values[layer], where, key, value)

    def copy(self, source: Region, start: int) -> None:
        """Copy a region to another that does not overlap it."""
        for tensor in (*self.keys, *self.values):
            tensor[:, start : start + source.length] = tensor[:, source.start : source.end]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


def _empty_on_cpu(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Of pages of 2 MiB where the system has them: an arena is read at places far apart, and the
    CPU looks up half as many. Raises MemoryError."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, prod(shape) * dtype.itemsize, flags=private)
    except OSError as error:
        raise MemoryError(str(error)) from error
    with suppress(AttributeError, OSError):  # not on Linux, or not in its kernel
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
