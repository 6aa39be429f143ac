"""Layouts of every kind, and attention over them in float64, one token at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import strategies as st

from models.packed.layout import Layout

#: Branches of a scored row: for each node itself and its ancestors.
TREE = ((0,), (0, 1), (2,), (0, 1, 3))


@dataclass(frozen=True)
class Block:
    """`tokens` new ones of a row after `known` of its own, with a prefix by its number."""

    known: int
    tokens: int
    prefix: int | None = None
    scored: bool = False


@dataclass
class _Arrays:
    blocks: list[int] = field(default_factory=lambda: [0])
    rows: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)
    extra_start: list[int] = field(default_factory=lambda: [0])

    def add(self, prefix: tuple[int, int], own: int, visible: int, place: int, write: int) -> None:
        self.rows.append((*prefix, own, visible, place, write))
        self.extra_start.append(len(self.extra))


def lay_out(blocks: list[Block], prefixes: list[int]) -> tuple[Layout, int]:
    """A layout, and the positions of its arena."""
    starts = np.cumsum([0, *prefixes])
    at, arrays = int(starts[-1]), _Arrays()
    for block in blocks:
        shared = (0, 0)
        if block.prefix is not None:
            shared = (int(starts[block.prefix]), prefixes[block.prefix])
        end = block.known + block.tokens
        for count in range(block.known + 1, end + 1):
            arrays.add(shared, at, count, shared[1] + count - 1, at + count - 1)
        arrays.blocks.append(len(arrays.rows))
        if block.scored:
            for path in TREE:
                arrays.extra += [at + end + node for node in path]
                place = shared[1] + end + len(path) - 1
                arrays.add(shared, at, end, place, at + end + path[-1])
            arrays.blocks.append(len(arrays.rows))
        at += end + len(TREE)
    prefix_start, prefix_length, own_start, visible, places, write = (
        np.array(column, dtype=np.int32) for column in zip(*arrays.rows, strict=True)
    )
    unused = torch.zeros(len(places), dtype=torch.int64)
    layout = Layout(
        tokens=unused,
        positions=torch.from_numpy(places.astype(np.int64)),
        write=torch.from_numpy(write.astype(np.int64)),
        keep=unused,
        blocks=np.array(arrays.blocks, dtype=np.int32),
        prefix_start=prefix_start,
        prefix_length=prefix_length,
        own_start=own_start,
        visible=visible,
        places=places,
        extra_start=np.array(arrays.extra_start, dtype=np.int32),
        extra=np.array(arrays.extra, dtype=np.int32),
    )
    return layout, at


_shared = st.sampled_from([None, 0, 1])
_decoding = st.builds(Block, st.integers(0, 150), st.just(1), _shared)
_reading = st.builds(Block, st.integers(0, 70), st.integers(1, 80), _shared, st.booleans())
layouts = st.builds(
    lambda decoding, reading, prefixes: lay_out(decoding + reading, prefixes),
    st.lists(_decoding, min_size=1, max_size=6),
    st.lists(_reading, max_size=3),
    st.lists(st.integers(1, 140), min_size=2, max_size=2),
)


def reference(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    layout: Layout,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """As `models.packed.attention.Attend`, in float64."""
    query, keys, values = query.double(), keys.double(), values.double()
    group = len(query) // len(keys)
    outs = []
    for t in range(layout.size):
        prefix, own = int(layout.prefix_start[t]), int(layout.own_start[t])
        where = [
            *range(prefix, prefix + int(layout.prefix_length[t])),
            *range(own, own + int(layout.visible[t])),
            *layout.extra[layout.extra_start[t] : layout.extra_start[t + 1]].tolist(),
        ]
        if window is not None:
            where = where[max(0, int(layout.places[t]) - window + 1) :]
        k = keys[:, where].repeat_interleave(group, 0)
        v = values[:, where].repeat_interleave(group, 0)
        scores = torch.einsum("hd,hnd->hn", query[:, t], k) * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        outs.append(torch.einsum("hn,hnd->hd", scores.softmax(-1), v))
    return torch.stack(outs)
