"""One step's tokens and what each of them sees: the only thing that attention knows of rows.

Index arrays live on the CPU as int32 numpy arrays, for kernels that are called from there, and as
tensors where the model is. Knows no model and no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(slots=True)
class Layout:
    """T tokens in B blocks; a block is consecutive tokens of one row. Token t sees, in this order,
    `prefix_length[t]` positions of the arena from `prefix_start[t]`, `visible[t]` positions from
    `own_start[t]`, then the single positions `extra[extra_start[t]:extra_start[t + 1]]`. What it
    sees includes itself. `positions[t]`: its place in its sequence, counted from 0; with a window
    of W it sees only those keys whose own place is more than `positions[t] - W`.

    Decode rows come first, one token each; inside a block `prefix_*` and `own_start` are equal and
    `visible` grows by one; a block of branches of a scored row has extras in each of its tokens,
    and the same `visible` in all.
    """

    tokens: torch.Tensor  # [T] int64, on the device
    positions: torch.Tensor  # [T] int64, on the device
    write: torch.Tensor  # [T] int64, on the device: where the token's keys and values go
    keep: torch.Tensor  # [N] int64, on the device: tokens whose logits are wanted, ascending
    blocks: Ints  # [B + 1]
    prefix_start: Ints  # [T]
    prefix_length: Ints  # [T]
    own_start: Ints  # [T]
    visible: Ints  # [T]
    places: Ints  # [T], the same numbers as `positions`
    extra_start: Ints  # [T + 1]
    extra: Ints  # [E]
    #: What a backend worked out for this step, once for all layers.
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.visible)

    @property
    def has_extra(self) -> bool:
        return len(self.extra) > 0

    @classmethod
    def plain(cls, tokens: Sequence[int], device: torch.device, start: int = 0) -> Layout:
        """One row's whole prompt, at the arena's position `start`; its last logits are kept."""
        size = len(tokens)
        places = np.arange(size, dtype=np.int32)
        zeros = np.zeros(size, dtype=np.int32)
        positions = torch.arange(size, device=device)
        return cls(
            tokens=torch.tensor(tokens, device=device),
            positions=positions,
            write=positions + start,
            keep=torch.tensor([size - 1], device=device),
            blocks=np.array([0, size], dtype=np.int32),
            prefix_start=zeros,
            prefix_length=zeros,
            own_start=zeros + np.int32(start),
            visible=places + np.int32(1),
            places=places,
            extra_start=np.zeros(size + 1, dtype=np.int32),
            extra=np.zeros(0, dtype=np.int32),
        )

    def kept(self) -> Layout:
        """The tokens of `keep` alone, in their order; a block keeps none, one or all of its own."""
        keep = self.keep.cpu().numpy()
        block = np.repeat(np.arange(len(self.blocks) - 1), np.diff(self.blocks))[keep]
        ends = np.flatnonzero(np.diff(block)) + 1
        counts = np.diff(self.extra_start)
        owner = np.repeat(np.arange(self.size), counts)
        return Layout(
            tokens=self.tokens[self.keep],
            positions=self.positions[self.keep],
            write=self.write[self.keep],
            keep=torch.arange(len(keep), device=self.keep.device),
            blocks=np.array([0, *ends, len(keep)][: len(keep) + 1], dtype=np.int32),
            prefix_start=self.prefix_start[keep],
            prefix_length=self.prefix_length[keep],
            own_start=self.own_start[keep],
            visible=self.visible[keep],
            places=self.places[keep],
            extra_start=np.concatenate(([0], np.cumsum(counts[keep]))).astype(np.int32),
            extra=self.extra[np.isin(owner, keep)],
        )

    def lengths(self) -> Ints:
        """Keys that each token sees, without a window: [T]."""
        total: Ints = self.prefix_length + self.visible + np.diff(self.extra_start)
        return total
