"""A step's arguments for a kernel of variable-length attention, made once for all its layers.

Index arithmetic on the host. Knows no kernel and no model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.packed.layout import Ints, Layout

Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a plan's arrays are: as large as its step, or, for a graph, fixed upper bounds.

    A token is `single` when it has its block for itself or sees extras. `blocks` counts the other
    blocks and the runs of tokens between them; 0: every token is single. `prefixes` counts
    different ones and one more, for the tokens that have none; 0: no token has one.
    """

    tokens: int
    singles: int
    blocks: int
    prefixes: int
    longest: int  # keys that one sequence may have


@dataclass(frozen=True, slots=True)
class Call:
    """n sequences of one kernel call. Sequence i: queries [queries[i], queries[i + 1]) on `used[i]`
    keys from `keys[i]`; the kernel reads no other entry of `keys` when it is given `used`."""

    queries: torch.Tensor  # [n + 1] int32
    keys: torch.Tensor  # [n + 1] int32
    used: torch.Tensor  # [n] int32
    most_queries: int
    most_keys: int
    at: torch.Tensor | None = None  # [q] int64: which tokens; None: all of the step, in order
    back: torch.Tensor | None = None  # [T] int64: where in the call each token of the step is
    gathered: torch.Tensor | None = None  # [k] int64: positions that are this call's keys

    def to(self, device: torch.device) -> Call:
        moved: dict[str, Any] = {
            name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors()
        }
        return replace(self, **moved)

    def refill(self, other: Call) -> None:
        """Take over the numbers of a call of the same sizes."""
        for (_, mine), (_, theirs) in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(theirs, non_blocking=True)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in found if isinstance(value, torch.Tensor)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls of one layer. `own`: all tokens on keys of their own rows. Where some blocks are
    longer than one token it finds no key for single ones; they are done once more, in `singles`."""

    own: Call
    singles: Call | None
    prefix: Call | None
    extras: Call | None

    def to(self, device: torch.device) -> Plan:
        return replace(self, **{name: call.to(device) for name, call in self._calls()})

    def refill(self, other: Plan) -> None:
        for (_, mine), (_, theirs) in zip(self._calls(), other._calls(), strict=True):
            mine.refill(theirs)

    def _calls(self) -> list[tuple[str, Call]]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in found if value is not None]


@dataclass(frozen=True, slots=True)
class Outline:
    """What of a step has to be known before its sizes are chosen."""

    singles: Slots  # tokens
    cuts: Slots  # [blocks + 1]: where the other blocks and the runs between them begin and end
    real: NDArray[np.bool_]  # [blocks]: not such a run
    prefixes: Ints  # [prefixes, 2]: start and length
    prefix: Slots  # [T]: which of them, or their count for none

    def sizes(self, layout: Layout) -> Sizes:
        """As large as the step."""
        size = layout.size
        all_single = len(self.singles) == size
        return Sizes(
            tokens=size,
            singles=len(self.singles),
            blocks=0 if all_single else len(self.real),
            prefixes=len(self.prefixes) and len(self.prefixes) + 1,
            longest=int(max(layout.visible.max(), layout.prefix_length.max())),
        )


def outline(layout: Layout) -> Outline:
    size = layout.size
    lengths = np.diff(layout.blocks)
    label = np.repeat(np.arange(len(lengths)), lengths)
    single = (lengths[label] == 1) | (np.diff(layout.extra_start) > 0)
    label[single] = -1
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(label)) + 1, [size]])
    pairs = np.stack([layout.prefix_start, layout.prefix_length], axis=1)
    having = layout.prefix_length > 0
    prefixes, index = np.unique(pairs[having], axis=0, return_inverse=True)
    prefix = np.full(size, len(prefixes))
    prefix[having] = index.ravel()
    return Outline(np.flatnonzero(single), cuts, label[cuts[:-1]] >= 0, prefixes, prefix)


def make(layout: Layout, step: Outline, sizes: Sizes, window: int | None) -> Plan:
    """Tokens behind the step's own, up to `sizes.tokens`, see nothing. Windows are in the ranges of
    keys, but for a call of whole blocks, which has to be told the window."""
    singles = _singles(layout, step, sizes, window) if sizes.singles else None
    return Plan(
        own=_blocks(layout, step, sizes) if sizes.blocks or singles is None else singles,
        singles=singles if sizes.blocks else None,
        prefix=_prefix(layout, step, sizes, window) if sizes.prefixes else None,
        extras=_extras(layout, window) if layout.has_extra else None,
    )


def _singles(layout: Layout, step: Outline, sizes: Sizes, window: int | None) -> Call:
    tokens = step.singles
    if sizes.blocks:
        # Pads do a token's work once more, to the same result.
        spare = tokens[0] if len(tokens) else 0
        tokens = np.concatenate([tokens, np.full(sizes.singles - len(tokens), spare)])
    visible = layout.visible[tokens].astype(np.int64)
    first = layout.places[tokens] - layout.prefix_length[tokens] + 1 - (window or 0)
    first = np.clip(first, 0, visible) if window is not None else np.zeros_like(visible)
    starts = layout.own_start[tokens] + first
    at = torch.from_numpy(tokens) if sizes.blocks else None
    return _one_each(starts, visible - first, sizes.singles, sizes.longest, at)


def _blocks(layout: Layout, step: Outline, sizes: Sizes) -> Call:
    """The runs of tokens between blocks, and behind them, see no key here."""
    starts = np.where(step.real, layout.own_start[step.cuts[:-1]], 0)
    used = np.where(step.real, layout.visible[step.cuts[1:] - 1], 0)
    return Call(
        queries=_padded(step.cuts, sizes.blocks + 1, sizes.tokens),
        keys=_padded(starts, sizes.blocks + 1, 0),
        used=_padded(used, sizes.blocks, 0),
        # Kernels take a call whose sequences have one query each in another way.
        most_queries=max(sizes.tokens, 2),
        most_keys=sizes.longest,
    )


def _prefix(layout: Layout, step: Outline, sizes: Sizes, window: int | None) -> Call:
    if window is not None:
        # Each token sees another part of it, and never more than the window.
        first = np.clip(layout.places - np.int32(window - 1), 0, layout.prefix_length)
        starts, used = layout.prefix_start + first, layout.prefix_length - first
        return _one_each(starts, used, sizes.tokens, sizes.longest, None)
    size, none = layout.size, len(step.prefixes)
    order = np.concatenate([np.argsort(step.prefix, kind="stable"), np.arange(size, sizes.tokens)])
    back = np.empty(sizes.tokens, dtype=np.int64)
    back[order] = np.arange(sizes.tokens)
    counts = np.bincount(step.prefix, minlength=none + 1)[:none]
    return Call(
        queries=_padded(np.concatenate([[0], np.cumsum(counts)]), sizes.prefixes + 1, sizes.tokens),
        keys=_padded(step.prefixes[:, 0], sizes.prefixes + 1, 0),
        used=_padded(step.prefixes[:, 1], sizes.prefixes, 0),
        most_queries=max(sizes.tokens, 2),
        most_keys=sizes.longest,
        at=torch.from_numpy(order),
        back=torch.from_numpy(back),
    )


def _extras(layout: Layout, window: int | None) -> Call:
    """A token's extras are a path that ends with itself, each one place after the other."""
    counts = np.diff(layout.extra_start)
    tokens = np.flatnonzero(counts)
    if window is None:
        kept, gathered = counts[tokens], layout.extra
    else:
        ends = np.repeat(layout.extra_start[1:], counts)
        gathered = layout.extra[ends - np.arange(len(layout.extra)) <= window]
        kept = np.minimum(counts[tokens], window)
    starts = np.cumsum(kept) - kept
    call = _one_each(starts, kept, len(tokens), int(kept.max()), torch.from_numpy(tokens))
    positions = torch.from_numpy(gathered.astype(np.int64))
    return replace(call, gathered=positions)


def _one_each(
    starts: NDArray[np.integer],
    used: NDArray[np.integer],
    size: int,
    longest: int,
    at: torch.Tensor | None,
) -> Call:
    """Sequences of one query each."""
    queries = torch.arange(size + 1, dtype=torch.int32)
    return Call(queries, _padded(starts, size + 1, 0), _padded(used, size, 0), 1, longest, at)


def _padded(values: NDArray[np.integer], size: int, fill: int) -> torch.Tensor:
    out = np.full(size, fill, dtype=np.int32)
    out[: len(values)] = values
    return torch.from_numpy(out)
